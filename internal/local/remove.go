package local

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
)

// remove forgets a pod that has ended and clears its run directory.
func (s *Supervisor) remove(ctx context.Context, p *keptPod) {
	s.pruneLogs(ctx)
	if err := os.RemoveAll(p.boot.RunDir); err != nil {
		s.o.Log.WarnContext(ctx, "run directory not removed", "pod", p.key, "error", err)
	}
	if err := os.RemoveAll(p.boot.StateDir); err != nil {
		s.o.Log.WarnContext(ctx, "state directory not removed", "pod", p.key, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pods, p.key)
	close(s.removed)
	s.removed = make(chan struct{})
	if !p.ended { // else it was told before
		s.gone(p.key)
	}
	s.pending = append(s.pending, func() {
		// Index is called with the lock held, too: the number of a name that
		// came again meanwhile is not given away.
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.pods[p.key] == nil {
			s.o.Release(p.key)
		}
	})
	s.wake()
}

// keptLogs is how many ended pods' logs stay on disk.
const keptLogs = 100

// pruneLogs deletes the oldest logs of pods that are gone.
func (s *Supervisor) pruneLogs(ctx context.Context) {
	dirs, err := pod.Dirs(filepath.Join(s.o.DataDir, "logs"))
	if err != nil {
		s.o.Log.WarnContext(ctx, "old logs are not all known", "error", err)
	}
	if len(dirs) <= keptLogs {
		return
	}
	type dead struct {
		path string
		end  time.Time
	}
	var list []dead
	for _, d := range dirs {
		key := filepath.Base(filepath.Dir(d)) + "/" + filepath.Base(d)
		s.mu.Lock()
		there := s.pods[key] != nil
		s.mu.Unlock()
		if !there {
			list = append(list, dead{d, lastWritten(d)})
		}
	}
	slices.SortFunc(list, func(a, b dead) int { return b.end.Compare(a.end) })
	for _, d := range list[min(keptLogs, len(list)):] {
		if err := os.RemoveAll(d.path); err != nil {
			s.o.Log.WarnContext(ctx, "old logs not removed", "dir", d.path, "error", err)
		}
	}
}

// lastWritten is when something was written to a log in dir, or one was made; zero
// if that is not known. The time of dir alone is that of the last rotation.
func lastWritten(dir string) (last time.Time) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return last
	}
	for _, e := range entries {
		if st, err := e.Info(); err == nil && st.ModTime().After(last) {
			last = st.ModTime()
		}
	}
	return last
}
