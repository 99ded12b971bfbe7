package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/vitrine-mesh/vitrine/internal/manifest"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// load reads the files. With the objects come the sets that are left out of them, and
// what is to be told.
func (m *Mesh) load() (objs *manifest.Objects, leftOut, warnings []string, err error) {
	objs, diags := manifest.Load(m.cfg.Files, manifest.Options{Stdin: m.io.Stdin, CheckPrograms: !m.io.Demo})
	bad := &ManifestError{}
	for _, d := range diags {
		bad.Lines = append(bad.Lines, d.String())
		if !d.Warning {
			bad.Count++
		}
	}
	if bad.Count > 0 {
		return nil, nil, nil, bad
	}
	if m.io.Demo {
		if leftOut, err = m.leaveOut(objs); err != nil {
			return nil, nil, nil, err
		}
	}
	return objs, leftOut, bad.Lines, nil
}

func (m *Mesh) tell(lines []string) {
	for _, line := range lines {
		fmt.Fprintln(m.io.Progress, line)
	}
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
			return fmt.Errorf("no workload of the files is called %q: see %s", target, CommandLine(m.cfg.RunDir, "ps"))
		}
		objs.Sets = slices.DeleteFunc(objs.Sets, named)
	}
	return m.applyLocked(&objs, m.leftOut)
}

// reloading reads the files of a mesh whenever they have changed. It belongs to the
// goroutine that watches them.
type reloading struct {
	mesh    *Mesh
	refused bool // what was read last
}

// reload reads the files again; if anything is wrong, what runs stays. Nothing is
// said if they ask for what they asked for before: of a comment, or of a file that was
// only touched.
func (r *reloading) reload(ctx context.Context) {
	m := r.mesh
	objs, leftOut, warnings, err := m.load()
	if bad, ok := errors.AsType[*ManifestError](err); ok {
		m.tell(bad.Lines)
	}
	if err == nil {
		m.mu.Lock()
		same := reflect.DeepEqual(wish(objs), wish(m.objs))
		if same {
			m.objs.Files = objs.Files // it may have moved between them
		}
		m.mu.Unlock()
		if same && !r.refused {
			return
		}
		m.tell(warnings)
		err = m.change(ctx, objs, leftOut)
	}
	if r.refused = err != nil; r.refused {
		fmt.Fprintf(m.io.Progress, "the change was not applied: %v; what runs goes on as before\n", err)
		return
	}
	fmt.Fprintln(m.io.Progress, "applied the change")
}

// wish is what objects ask for, without what only tells of the files.
func wish(objs *manifest.Objects) manifest.Objects {
	w := *objs
	w.Files = nil
	w.Sets = slices.Clone(objs.Sets)
	for i := range w.Sets {
		w.Sets[i].Source = ""
	}
	return w
}

// change applies objects while others are in force.
func (m *Mesh) change(ctx context.Context, objs *manifest.Objects, leftOut []string) error {
	mine := map[netip.AddrPort]bool{}
	m.mu.Lock()
	for _, p := range publishedBy(m.objs.Services) {
		mine[p.address] = true
	}
	var emptied []string
	for file, holds := range objs.Files {
		if !holds && m.objs.Files[file] {
			emptied = append(emptied, file)
		}
	}
	m.mu.Unlock()
	slices.Sort(emptied)
	if len(emptied) > 0 { // somebody is about to write it: `helm template >FILE`
		return fmt.Errorf("%s holds no object any more (to stop what it asked for, remove the file)", strings.Join(emptied, ", "))
	}
	if err := checkPublished(ctx, objs.Services, mine); err != nil {
		return err
	}
	return m.apply(objs, leftOut)
}
