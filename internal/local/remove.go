package local

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// remove forgets a pod that has ended and clears its run directory.
func (s *Supervisor) remove(ctx context.Context, p *keptPod) {
	s.pruneLogs(ctx)
	if err := os.RemoveAll(p.boot.RunDir); err != nil {
		s.o.Log.WarnContext(ctx, "run directory not removed", "pod", p.key, "error", err)
	}
	if p.boot.Set.Kind != mesh.KindStatefulSet { // its name will come again
		if err := os.RemoveAll(p.boot.StateDir); err != nil {
			s.o.Log.WarnContext(ctx, "state directory not removed", "pod", p.key, "error", err)
		}
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
	s.mu.Lock()
	for _, d := range dirs {
		key := filepath.Base(filepath.Dir(d)) + "/" + filepath.Base(d)
		if st, err := os.Stat(d); err == nil && s.pods[key] == nil {
			list = append(list, dead{d, st.ModTime()})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b dead) int { return b.end.Compare(a.end) })
	for _, d := range list[min(keptLogs, len(list)):] {
		if err := os.RemoveAll(d.path); err != nil {
			s.o.Log.WarnContext(ctx, "old logs not removed", "dir", d.path, "error", err)
		}
	}
}
