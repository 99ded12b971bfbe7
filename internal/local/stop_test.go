package local_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local"
	"github.com/vitrine-mesh/vitrine/internal/local/pod"
)

func TestStubbornProgramIsKilled(t *testing.T) {
	w := newWorld(t)
	set := deployment("web", 1, "stubborn", "8080")
	set.GracePeriod = 300 * time.Millisecond
	w.apply(t, set)
	p := w.settled(t)[0]
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := w.sup.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d < 300*time.Millisecond {
		t.Errorf("it ended after %s, before its grace period", d)
	}
	if err := syscall.Kill(p.Status.Containers[0].PID, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the program is there: %v", err)
	}
}

func TestChildrenOfAProgramEndWithIt(t *testing.T) {
	w := newWorld(t)
	w.apply(t, deployment("web", 1, "leave-child"))
	eventually(t, func() error {
		if p := w.sup.Pods(); len(p) == 0 || p[0].Status.Reason != pod.ReasonCrashLoop {
			return errors.New(w.describe())
		}
		usage, err := w.sup.Usage()
		if err == nil && (len(usage) != 2 || len(usage[0].PIDs) != 0) {
			err = fmt.Errorf("in back-off there are processes: %+v", usage)
		}
		return err
	})
}

// Pods are ended by Run: when it is over, Stop says so and does not wait for
// what nobody does.
func TestStopWithoutRunEnds(t *testing.T) {
	dir := t.TempDir()
	w, detach := reopen(t, dir)
	w.apply(t, deployment("web", 1, "serve", "8080"))
	key := w.settled(t)[0].Workload.Key()
	detach()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for name, ctx := range map[string]context.Context{"lasting": t.Context(), "over": over} {
		if err := w.sup.Stop(ctx); err == nil {
			t.Errorf("with a context that is %s: no error, and %s runs", name, key)
		}
	}
	if pid, err := pod.Holder(filepath.Join(dir, "pods", key)); pid == 0 || err != nil {
		t.Errorf("the pod's process: %d, %v", pid, err)
	}
	_, _ = reopen(t, dir) // whose end stops the pod
}

// A pod that is replaced is told to stop only when the proxies know that it is no
// endpoint any more, and serves until then.
func TestStopWaitsForTheProxies(t *testing.T) {
	w := newWorld(t)
	w.apply(t, deployment("web", 1, "serve", "8080"))
	p := w.settled(t)[0]
	unlisted := make(chan struct{})
	w.mu.Lock()
	w.unlisted = unlisted
	w.mu.Unlock()
	w.apply(t)
	eventually(t, func() error {
		for s := range w.plane.Watch(t.Context()) {
			if len(s.Workloads) == 1 && s.Workloads[0].Ready {
				return errors.New("still ready")
			}
			break
		}
		return nil
	})
	client := pod.NewClient(filepath.Join(w.dir, "pods", p.Workload.Key()))
	defer client.Close()
	if st, err := client.Status(t.Context()); err != nil || st.Stopping {
		t.Errorf("stopping before the proxies know: %+v, %v", st, err)
	}
	if _, err := get(&p, "/"); err != nil {
		t.Errorf("refused before the proxies know: %v", err)
	}
	close(unlisted)
	eventually(t, func() error {
		if n := len(w.sup.Pods()); n > 0 {
			return fmt.Errorf("%d pods are left", n)
		}
		return nil
	})
}

// TestLastWords: what a program says at its very end reaches those who follow its
// log, and the terminal of the control plane that ends with it.
func TestLastWords(t *testing.T) {
	w, detach := reopen(t, t.TempDir())
	w.apply(t, deployment("sayer", 1, "signals"))
	w.settled(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var followed []string
	waiting := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- w.sup.Logs(ctx, local.LogOptions{Targets: []string{"sayer"}, Follow: true, Tail: -1}, func(_, _ string, line []byte) error {
			followed = append(followed, string(line))
			switch string(line) {
			case "waiting":
				close(waiting)
			case "got terminated":
				cancel()
			}
			return nil
		})
	}()
	select {
	case <-waiting: // it handles signals, and is followed
	case <-ctx.Done():
		t.Fatal("it does not say that it waits")
	}
	if err := w.sup.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	detach()
	if err := <-done; err != nil || !slices.Contains(followed, "got terminated") {
		t.Errorf("followed %q, %v", followed, err)
	}
	if !slices.ContainsFunc(w.output, func(s string) bool { return strings.HasSuffix(s, "/app: got terminated") }) {
		t.Errorf("shown %q", w.output)
	}
}

// TestFollowedOnce: of several pods that are followed by name, one that ends before
// the others is not told again when they have ended, too.
func TestFollowedOnce(t *testing.T) {
	w := newWorld(t)
	first, second := deployment("first", 1, "signals"), deployment("second", 1, "signals")
	w.apply(t, first, second)
	pods := w.settled(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lines := make(chan string, 100)
	o := local.LogOptions{Targets: []string{pods[0].Workload.Name, pods[1].Workload.Name}, Follow: true, Tail: -1}
	done := make(chan error, 1)
	go func() {
		done <- w.sup.Logs(ctx, o, func(pod, _ string, line []byte) error {
			lines <- pod + ": " + string(line)
			return nil
		})
	}()
	var told []string
	count := func(line string) (n int) {
		for _, l := range told {
			if l == line {
				n++
			}
		}
		return n
	}
	await := func(line string, n int) {
		t.Helper()
		limit := time.NewTimer(patience)
		defer limit.Stop()
		for count(line) < n {
			select {
			case l := <-lines:
				told = append(told, l)
			case <-limit.C:
				t.Fatalf("no %q after %q", line, told)
			}
		}
	}
	gone := func(left int) {
		t.Helper()
		eventually(t, func() error {
			if n := len(w.sup.Pods()); n > left {
				return errors.New(w.describe())
			}
			return nil
		})
	}
	a, b := pods[0].Workload.Name, pods[1].Workload.Name
	await(a+": waiting", 1)
	await(b+": waiting", 1)
	w.apply(t, second)
	await(a+": got terminated", 1)
	gone(1)
	for n := range 2 { // two looks at the logs: then it was seen that the first is gone
		if err := syscall.Kill(pods[1].Status.Containers[0].PID, syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		await(b+": got hangup", n+1)
	}
	w.apply(t)
	await(b+": got terminated", 1)
	gone(0)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	close(lines)
	for l := range lines {
		told = append(told, l)
	}
	for _, line := range []string{a + ": got terminated", b + ": got terminated"} {
		if n := count(line); n != 1 {
			t.Errorf("%q was told %d times: %q", line, n, told)
		}
	}
}
