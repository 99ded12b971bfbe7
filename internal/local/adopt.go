package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// adopt finds what earlier supervisors left: pods that run are kept, Jobs' ended
// pods are remembered, everything else is cleared away.
func (s *Supervisor) adopt(ctx context.Context) error {
	dirs, err := pod.Dirs(filepath.Join(s.o.RunDir, "pods"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := s.adoptDir(ctx, dir); err != nil {
			s.o.Log.WarnContext(ctx, "pod directory cannot be used", "dir", dir, "error", err)
		}
	}
	return nil
}

func (s *Supervisor) adoptDir(ctx context.Context, dir string) error {
	key := filepath.Base(filepath.Dir(dir)) + "/" + filepath.Base(dir)
	s.mu.Lock()
	known := s.pods[key] != nil // made by Prepare a moment ago
	s.mu.Unlock()
	if known {
		return nil
	}
	proc, err := attach(dir)
	if err != nil {
		return err
	}
	boot, err := pod.ReadBootstrap(filepath.Join(dir, pod.BootstrapFile))
	switch {
	case err != nil:
	case boot.Workload.Key() != key:
		err = fmt.Errorf("its bootstrap file is of %s", boot.Workload.Key())
	case boot.Net != s.o.Net:
		err = fmt.Errorf("its addresses are in network %d, those of the mesh in %d", boot.Net, s.o.Net)
	}
	if err != nil {
		if proc != nil {
			s.o.Log.WarnContext(ctx, "running pod cannot be taken over and is ended", "dir", dir, "pid", proc.pid, "error", err)
			err = proc.end(ctx, strayGrace)
			proc.close()
			if err != nil {
				return err
			}
		}
		return s.clearAway(key, dir)
	}
	final, ended := pod.ReadFinal(dir)
	if proc == nil && (!ended || boot.Set.Kind != mesh.KindJob) {
		s.o.Release(key)
		return s.clearAway(key, dir)
	}
	p := newKeptPod(boot, ordinalOf(boot))
	p.adopted = true
	switch {
	case proc == nil && final.Stopping:
		p.setInterrupted(&final)
	case proc == nil:
		p.setEnded(&final)
	default:
		p.pid = proc.pid
		s.inquire(ctx, p)
		proc.close()                                         // keep opens it again
		index, _ := mesh.IndexOf(boot.Net, boot.Workload.IP) // ReadBootstrap has checked it
		if err := s.o.Claim(key, index); err != nil {
			s.o.Log.WarnContext(ctx, "running pod lost its address and is replaced", "pod", key, "error", err)
			p.stop(true)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods[key] = p
	s.launched = append(s.launched, p)
	s.changed(p)
	return nil
}

// clearAway removes the directory of a pod that does not run. Others may have found it
// running a moment ago, so that it is gone is told.
func (s *Supervisor) clearAway(key, dir string) error {
	s.mu.Lock()
	s.gone(key)
	s.mu.Unlock()
	return os.RemoveAll(dir)
}

// inquire asks a pod that was found running how it is, so that it is announced as
// it is: announced as not ready, it would be taken out of service everywhere
// until its first report arrives.
func (s *Supervisor) inquire(ctx context.Context, p *keptPod) {
	// Long enough for a busy machine; one that is stopped (Ctrl-Z) holds up the others.
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	client := pod.NewClient(p.boot.RunDir)
	defer client.Close()
	st, err := client.Status(ctx)
	switch {
	case err != nil:
		s.o.Log.WarnContext(ctx, "running pod does not say how it is", "pod", p.key, "error", err)
	case st.PID == p.pid:
		p.status = *st
	}
}
