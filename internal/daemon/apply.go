package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vitrine-mesh/vitrine/internal/manifest"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// load reads the files and tells their warnings, and which sets are left out of
// the objects.
func (m *Mesh) load() (objs *manifest.Objects, leftOut []string, err error) {
	objs, diags := manifest.Load(m.cfg.Files, manifest.Options{Stdin: m.io.Stdin, CheckPrograms: !m.io.Demo})
	bad := &ManifestError{}
	for _, d := range diags {
		bad.Lines = append(bad.Lines, d.String())
		if !d.Warning {
			bad.Count++
		}
	}
	if bad.Count > 0 {
		return nil, nil, bad
	}
	for _, line := range bad.Lines {
		fmt.Fprintln(m.io.Progress, line)
	}
	if m.io.Demo {
		if leftOut, err = m.leaveOut(objs); err != nil {
			return nil, nil, err
		}
	}
	return objs, leftOut, nil
}

// apply hands loaded objects on in place of those before. If anything about
// them is refused, nothing has changed.
func (m *Mesh) apply(objs *manifest.Objects, leftOut []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.applyLocked(objs, leftOut)
}

func (m *Mesh) applyLocked(objs *manifest.Objects, leftOut []string) error {
	if err := m.local.Apply(objs.Sets); err != nil {
		return fmt.Errorf("apply the files: %w", err)
	}
	m.objs, m.leftOut = objs, leftOut
	m.plane.SetServices("files", objs.Services)
	m.plane.SetServices("run", m.runServices())
	return nil
}

// remove takes the workload sets that the targets name (NAME or NAMESPACE/NAME) out
// of what is wanted, until files are applied again, and returns when their
// programs have ended.
func (m *Mesh) remove(ctx context.Context, targets []string) error {
	if err := m.leaveAway(targets); err != nil {
		return err
	}
	return m.local.AwaitGone(ctx, targets)
}

// leaveAway takes the sets that targets name out of what is wanted.
func (m *Mesh) leaveAway(targets []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	objs := *m.objs
	objs.Sets = slices.Clone(objs.Sets)
	for _, target := range targets {
		named := func(s mesh.WorkloadSet) bool { return target == s.Name || target == s.Namespace+"/"+s.Name }
		if !slices.ContainsFunc(m.objs.Sets, named) {
			return fmt.Errorf("no workload of the files is called %q: see `vitrine ps`", target)
		}
		objs.Sets = slices.DeleteFunc(objs.Sets, named)
	}
	return m.applyLocked(&objs, m.leftOut)
}

// reload reads the files again; if anything is wrong, what runs stays.
func (m *Mesh) reload(ctx context.Context) {
	objs, leftOut, err := m.load()
	if bad, ok := errors.AsType[*ManifestError](err); ok {
		fmt.Fprintln(m.io.Progress, strings.Join(bad.Lines, "\n"))
	}
	if err == nil {
		mine := map[netip.AddrPort]bool{}
		m.mu.Lock()
		for _, p := range publishedBy(m.objs.Services) {
			mine[p.address] = true
		}
		m.mu.Unlock()
		err = checkPublished(ctx, objs.Services, mine)
	}
	if err == nil {
		err = m.apply(objs, leftOut)
	}
	if err != nil {
		fmt.Fprintf(m.io.Progress, "the change was not applied: %v; what runs goes on as before\n", err)
		return
	}
	fmt.Fprintln(m.io.Progress, "applied the change")
}
