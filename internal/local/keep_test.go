package local

import (
	"context"
	"log/slog"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// keptForTest is a pod of a Job under a supervisor whose proxies end at once and
// without a word.
func keptForTest(t *testing.T) (*Supervisor, *keptPod) {
	t.Helper()
	proxy, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &Supervisor{
		o:    Options{ProxyBinary: proxy, DataDir: dir, Log: slog.New(slog.DiscardHandler)},
		kick: make(chan struct{}, 1), removed: make(chan struct{}), pods: map[string]*keptPod{},
	}
	p := newKeptPod(&pod.Bootstrap{
		Workload: mesh.Workload{Namespace: "default", Name: "migrate-1"},
		Set:      mesh.WorkloadSet{Kind: mesh.KindJob, Restart: mesh.RestartOnFailure},
		RunDir:   dir, StateDir: filepath.Join(dir, "state"), LogDir: filepath.Join(dir, "log"),
		Runs: map[string]int{"app": 3},
	}, 0)
	s.pods[p.key] = p
	return s, p
}

// keepUntil looks after the pod until ok, asked after each event, is true, and
// reports whether it ever was.
func keepUntil(t *testing.T, s *Supervisor, p *keptPod, ok func() bool) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		s.keep(ctx, p)
	}()
	defer func() { cancel(); <-kept }()
	for {
		select {
		case <-s.kick:
		case <-kept:
			return false
		}
		s.mu.Lock()
		done := ok()
		s.mu.Unlock()
		if done {
			return true
		}
	}
}

// TestEndAfterAdoption: a pod that ends between the moment in which it is found running
// and that in which it is looked after has ended, and does not run a second time.
func TestEndAfterAdoption(t *testing.T) {
	const pid = 4711 // of nobody that is asked
	s, p := keptForTest(t)
	p.adopted, p.pid = true, pid
	if err := pod.WriteFinal(p.boot.RunDir, &pod.Status{PID: pid, Phase: pod.Succeeded}); err != nil {
		t.Fatal(err)
	}
	if !keepUntil(t, s, p, func() bool { return p.ended || p.crashes > 0 }) || p.crashes != 0 || p.status.Phase != pod.Succeeded || p.pid != 0 {
		t.Errorf("ended %t as %+v after %d crashes, process %d", p.ended, p.status, p.crashes, p.pid)
	}
}

// TestGivenUpKeepsExits: what is told of a pod that was given up is how its program
// ended before, not that it was made to end.
func TestGivenUpKeepsExits(t *testing.T) {
	_, p := keptForTest(t)
	exited := func(code int) []pod.ContainerStatus {
		return []pod.ContainerStatus{{Name: "web", LastExit: &pod.LastExit{Code: code}}, {Name: "side"}}
	}
	p.status.Containers = exited(9)
	p.giveUp()
	p.status.Containers[1].LastExit = &pod.LastExit{Code: 143}
	p.giveUp() // every look at the Job says so
	p.setAbandoned(&pod.Status{Containers: exited(143)})
	if got := p.status.Containers; got[0].LastExit.Code != 9 || got[1].LastExit != nil || p.status.Reason != pod.ReasonBackoffLimit {
		t.Errorf("it is told as %+v", p.status)
	}
}

// TestGivenUpInBackOff: a pod of a Job that has failed stays as a record of it, also
// if its proxy was about to be started again.
func TestGivenUpInBackOff(t *testing.T) {
	s, p := keptForTest(t)
	if !keepUntil(t, s, p, func() bool {
		if p.status.Reason == pod.ReasonCrashLoop {
			p.giveUp()
		}
		return p.ended
	}) || p.status.Phase != pod.Failed || p.status.Reason != pod.ReasonBackoffLimit || p.restarts() != 2 {
		t.Errorf("ended %t as %+v after %d restarts", p.ended, p.status, p.restarts())
	}
	if final, ok := pod.ReadFinal(p.boot.RunDir); !ok || final.Reason != pod.ReasonBackoffLimit || final.Stopping {
		t.Errorf("the next supervisor reads %+v, %t", final, ok)
	}
}
