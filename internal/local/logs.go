package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// logPoll is how often log files are looked at for new lines.
const logPoll = 100 * time.Millisecond

// LogOptions choose what Logs copies.
type LogOptions struct {
	Targets   []string // pods or owners, as for Restart; none is all
	Namespace string   // only these; "" is all
	Container string   // "" is all but the proxy; pod.ProxyContainer is the proxy's own log
	Follow    bool     // go on until ctx ends, with pods that appear meanwhile
	Tail      int      // only the last lines of each container; negative is all
}

// Logs calls emit with each line (without its line feed) of the chosen
// containers; the slice is valid during the call. An error of emit ends it and
// is returned. Logs of pods that ended before the call can be read by their pod's
// name.
func (s *Supervisor) Logs(ctx context.Context, o LogOptions, emit func(pod, container string, line []byte) error) error {
	old, missing, err := s.oldLogs(o)
	if err != nil {
		return err
	}
	sources := append(s.logSources(o), old...)
	switch {
	case len(sources) == 0 && !o.Follow:
		return s.noLogs(o)
	case len(missing) > 0 && !o.Follow:
		return nothingCalled(missing...)
	}
	open := tailedLogs{}
	defer open.close()
	tick := time.NewTicker(logPoll)
	defer tick.Stop()
	begin := func(t *tailedLog) error { return t.seek(o.Tail) }
	for last := !o.Follow; ; sources = s.logSources(o) {
		err := open.update(sources, begin)
		begin = func(*tailedLog) error { return nil } // of what comes later every line is new
		if err == nil {
			err = open.pass(emit, last)
		}
		if err != nil || last {
			return err
		}
		select {
		case <-ctx.Done():
			last = true // what was written since the last look
		case <-tick.C:
		}
	}
}

// LogCount is of how many containers Logs would copy lines now, initial ones and
// those of pods that are gone among them.
func (s *Supervisor) LogCount(o LogOptions) (int, error) {
	old, _, err := s.oldLogs(o)
	return len(s.logSources(o)) + len(old), err
}

// tailedLog is a log that is read as it grows.
type tailedLog struct {
	logSource
	tailer
	gone bool // nobody writes to it any more
}

// tailedLogs are read together, in the order in which they were found.
type tailedLogs []*tailedLog

// update adds the sources that are new, and notes which are gone. begin is called
// with each new one.
func (l *tailedLogs) update(sources []logSource, begin func(*tailedLog) error) error {
	present := map[string]bool{}
	known := map[string]bool{}
	for _, t := range *l {
		known[t.logSource.path] = true
	}
	for _, src := range sources {
		present[src.path] = true
		if known[src.path] {
			continue
		}
		known[src.path] = true
		t := &tailedLog{logSource: src, tailer: tailer{path: src.path}}
		*l = append(*l, t)
		if err := begin(t); err != nil {
			return fmt.Errorf("read log of %s: %w", src.pod, err)
		}
	}
	for _, t := range *l {
		t.gone = !present[t.logSource.path]
	}
	return nil
}

// pass emits the lines that are new, of those that are gone, or of all with end, the
// unfinished ones too. What is gone is forgotten.
func (l *tailedLogs) pass(emit func(pod, container string, line []byte) error, end bool) (err error) {
	for _, t := range *l {
		each := func(line []byte) {
			if err == nil {
				err = emit(t.pod, t.container, line)
			}
		}
		t.poll(each)
		if end || t.gone {
			t.flush(each)
		}
	}
	*l = slices.DeleteFunc(*l, func(t *tailedLog) bool {
		if t.gone {
			t.close()
		}
		return t.gone
	})
	return err
}

func (l *tailedLogs) close() {
	for _, t := range *l {
		t.close()
	}
}

// chooses reports whether o is about the pod, whatever its containers.
func (o *LogOptions) chooses(w *mesh.Workload) bool {
	return (o.Namespace == "" || o.Namespace == w.Namespace) &&
		(len(o.Targets) == 0 || slices.ContainsFunc(o.Targets, func(t string) bool { return Matches(t, w) }))
}

// noLogs says why o chooses none.
func (s *Supervisor) noLogs(o LogOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	matching, elsewhere := 0, 0
	var containers []string
	for _, p := range s.pods {
		if !o.chooses(&p.boot.Workload) {
			continue
		}
		matching++
		if p.boot.Foreground {
			elsewhere++
		}
		for _, c := range slices.Concat(p.boot.Set.InitContainers, p.boot.Set.Containers) {
			containers = append(containers, c.Name)
		}
	}
	slices.Sort(containers)
	names := strings.Join(o.Targets, ", ")
	switch {
	case matching == 0 && names == "" && o.Namespace != "":
		return fmt.Errorf("nothing runs in namespace %s", o.Namespace)
	case matching == 0 && names == "":
		return errors.New("no logs, since nothing runs")
	case matching == 0:
		return nothingCalled(o.Targets...)
	case matching == elsewhere:
		return fmt.Errorf("no logs of %s: programs of `vitrine run` write to their own terminal, -c %s shows their proxy's log",
			cmp.Or(names, "anything"), pod.ProxyContainer)
	case o.Container != "":
		return fmt.Errorf("no logs of container %s: the containers are %s", o.Container,
			strings.Join(append(slices.Compact(containers), pod.ProxyContainer), ", "))
	}
	return fmt.Errorf("no logs of %s", cmp.Or(names, "anything"))
}

// logSource is the log of one container.
type logSource struct {
	pod, container, path string
	adopted              bool // see keptPod
}

// logSources lists the logs of present pods that o chooses, in the order of pods and
// containers.
func (s *Supervisor) logSources(o LogOptions) []logSource {
	var out []logSource
	s.mu.Lock()
	for _, p := range s.pods {
		w := &p.boot.Workload
		// A program in the foreground writes to its own terminal.
		ownTerminal := p.boot.Foreground && o.Container != pod.ProxyContainer
		if p.boot.LogDir == "" || ownTerminal || !o.chooses(w) {
			continue
		}
		add := func(container string) {
			out = append(out, logSource{w.Name, container, pod.LogPath(p.boot.LogDir, container), p.adopted})
		}
		if o.Container == pod.ProxyContainer {
			add(pod.ProxyContainer)
			continue
		}
		for i := range p.boot.Set.InitContainers {
			if n := p.boot.Set.InitContainers[i].Name; o.Container == "" || o.Container == n {
				add(n)
			}
		}
		for i := range p.boot.Set.Containers {
			if n := p.boot.Set.Containers[i].Name; o.Container == "" || o.Container == n {
				add(n)
			}
		}
	}
	s.mu.Unlock()
	slices.SortStableFunc(out, func(a, b logSource) int { return strings.Compare(a.pod, b.pod) })
	return out
}

// oldLogs finds the logs of pods that are gone: those of the targets that name
// none that is there. missing are the targets that name none that is gone, either.
func (s *Supervisor) oldLogs(o LogOptions) (out []logSource, missing []string, err error) {
	var names []string
	s.mu.Lock()
	for _, t := range o.Targets {
		if !s.present(t) {
			names = append(names, t)
		}
	}
	s.mu.Unlock()
	if len(names) == 0 {
		return nil, nil, nil
	}
	dirs, err := pod.Dirs(filepath.Join(s.o.DataDir, "logs"))
	if err != nil {
		return nil, nil, fmt.Errorf("look for logs of %s: %w", strings.Join(names, ", "), err)
	}
	for _, t := range names {
		found := false
		for _, dir := range dirs {
			name := filepath.Base(dir)
			w := mesh.Workload{Namespace: filepath.Base(filepath.Dir(dir)), Name: name, Owner: name} // whose it was is not known
			if !Matches(t, &w) || o.Namespace != "" && o.Namespace != w.Namespace {
				continue
			}
			found = true
			containers, err := logsIn(dir)
			if err != nil {
				return nil, nil, fmt.Errorf("look for logs of %s: %w", t, err)
			}
			for _, c := range containers {
				if o.Container == c || o.Container == "" && c != pod.ProxyContainer {
					out = append(out, logSource{w.Name, c, pod.LogPath(dir, c), false})
				}
			}
		}
		if !found {
			missing = append(missing, t)
		}
	}
	return out, missing, nil
}

// logsIn lists the containers that have a log in dir, in order.
func logsIn(dir string) (containers []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if c, ok := strings.CutSuffix(e.Name(), ".log"); ok {
			containers = append(containers, c)
		}
	}
	return containers, err
}

// ErrNothingCalled says that a name fits no pod.
var ErrNothingCalled = errors.New("nothing is called")

func nothingCalled(targets ...string) error {
	return fmt.Errorf("%w %q", ErrNothingCalled, strings.Join(targets, ", "))
}

// present reports whether a target names a pod that is there. s.mu is held.
func (s *Supervisor) present(target string) bool {
	for _, p := range s.pods {
		if Matches(target, &p.boot.Workload) {
			return true
		}
	}
	return false
}

// copyOutput passes new lines of all programs to Options.Output until ctx ends.
func (s *Supervisor) copyOutput(ctx context.Context) {
	if s.o.Output == nil {
		return
	}
	open := tailedLogs{}
	defer open.close()
	tick := time.NewTicker(logPoll)
	defer tick.Stop()
	for last := false; ; {
		if err := s.showOutput(&open, last); err != nil || last { // it does not fail
			return
		}
		select {
		case <-ctx.Done():
			last = true // what was written since the last look
		case <-tick.C:
		}
	}
}

// showOutput passes what is new on to Options.Output; with end, unfinished lines too.
func (s *Supervisor) showOutput(open *tailedLogs, end bool) error {
	err := open.update(s.logSources(LogOptions{}), func(t *tailedLog) error {
		if t.adopted {
			_ = t.seek(0) // its lines so far were shown by an earlier supervisor
		}
		return nil
	})
	if err != nil {
		return err
	}
	return open.pass(func(pod, container string, line []byte) error {
		s.o.Output(pod, container, line)
		return nil
	}, end)
}
