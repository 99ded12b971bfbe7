package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"github.com/vitrine-mesh/vitrine/internal/local"
)

// serveLogs streams lines; several sources are told apart by a prefix.
func (m *Mesh) serveLogs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	tail, err := strconv.Atoi(q.Get("tail"))
	if err != nil {
		tail = -1
	}
	o := local.LogOptions{
		Targets: q["target"], Namespace: q.Get("namespace"), Container: q.Get("container"), Follow: q.Get("follow") == "true", Tail: tail,
	}
	if o.Follow {
		// Without this, a name that is misspelt would be waited for.
		for _, target := range o.Targets {
			if !m.there(target) {
				reply(w, nil, m.whereNamed(fmt.Errorf("%w %q", local.ErrNothingCalled, target)))
				return
			}
		}
	}
	sources, err := m.local.LogCount(o)
	if err != nil {
		reply(w, nil, m.whereNamed(err))
		return
	}
	prefix := len(o.Targets) != 1 || sources > 1
	var only [2]string // pod and container of all lines so far, while there is no prefix
	flusher, _ := w.(http.Flusher)
	wrote := false
	// With the programs the log ends, too, and its reader gets their last words.
	ctx, cancel := context.WithCancel(r.Context())
	var ending sync.WaitGroup
	defer ending.Wait()
	defer cancel()
	ending.Go(func() {
		select {
		case <-m.stopped:
			cancel()
		case <-ctx.Done():
		}
	})
	err = m.local.Logs(ctx, o, func(pod, container string, line []byte) error {
		source := [2]string{pod, container}
		if !wrote {
			only = source
		}
		prefix = prefix || source != only // another pod in its place, after a restart
		wrote = true
		var b []byte
		if prefix {
			b = append(b, linePrefix(pod, container)...)
		}
		if _, err := w.Write(append(append(b, line...), '\n')); err != nil {
			return fmt.Errorf("send logs: %w", err)
		}
		if o.Follow && flusher != nil {
			flusher.Flush()
		}
		return nil
	})
	if err != nil && !wrote {
		reply(w, nil, m.whereNamed(err))
	}
}

// whereNamed adds to the error of a wrong name where the right ones stand.
func (m *Mesh) whereNamed(err error) error {
	if errors.Is(err, local.ErrNothingCalled) {
		return fmt.Errorf("%w: see %s", err, CommandLine(m.cfg.RunDir, "ps"))
	}
	return err
}

// there reports whether a target names a pod that is there.
func (m *Mesh) there(target string) bool {
	return slices.ContainsFunc(m.local.Pods(), func(p local.PodStatus) bool { return local.Matches(target, &p.Workload) })
}

func linePrefix(pod, container string) string { return "[" + pod + " " + container + "] " }

// printer writes the programs' lines to out, whole.
func printer(out io.Writer) func(pod, container string, line []byte) {
	var mu sync.Mutex
	return func(pod, container string, line []byte) {
		mu.Lock()
		defer mu.Unlock()
		var b bytes.Buffer
		b.WriteString(linePrefix(pod, container))
		b.Write(line)
		b.WriteByte('\n')
		_, _ = out.Write(b.Bytes()) // nobody to tell if our own output is gone
	}
}
