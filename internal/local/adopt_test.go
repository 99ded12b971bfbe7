package local_test

import (
	"errors"
	"syscall"
	"testing"
	"time"
)

// TestHistoryOutlivesTheSupervisor: the agent of a pod is killed, which is one
// restart, whatever the proxy tried before it gave up; then there is another
// control plane, which tells the same age and the same number.
func TestHistoryOutlivesTheSupervisor(t *testing.T) {
	dir := t.TempDir()
	w, detach := reopen(t, dir)
	set := deployment("web", 1, "serve", "8080")
	w.apply(t, set)
	first := w.settled(t)[0]
	agents := children(t, first.ProxyPID)
	if len(agents) != 1 {
		t.Fatalf("children of the proxy: %v", agents)
	}
	if err := syscall.Kill(agents[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, func() error {
		if now := w.sup.Pods()[0]; !now.Workload.Ready || now.ProxyPID == first.ProxyPID {
			return errors.New(w.describe())
		}
		return nil
	})
	before := w.sup.Pods()[0]
	if before.Restarts != 1 {
		t.Errorf("%d restarts after the agent was killed, want 1: %+v", before.Restarts, before.Status.Containers)
	}
	detach()

	w, _ = reopen(t, dir)
	w.apply(t, set)
	eventually(t, 20*time.Second, func() error {
		if pods := w.sup.Pods(); len(pods) != 1 || !pods[0].Workload.Ready {
			return errors.New(w.describe())
		}
		return nil
	})
	after := w.sup.Pods()[0]
	if after.ProxyPID != before.ProxyPID || after.Restarts != 1 || !after.Created.Equal(before.Created) {
		t.Errorf("taken over: process %d, %d restarts, made at %s; want %d, 1, %s", after.ProxyPID, after.Restarts, after.Created, before.ProxyPID, before.Created)
	}
}
