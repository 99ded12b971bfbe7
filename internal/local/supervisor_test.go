package local_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local"
	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// Environment of this test binary in its other roles.
const (
	supervisorEnv = "VITRINE_TEST_SUPERVISOR" // the directory to supervise in
	binariesEnv   = "VITRINE_TEST_BINARIES"   // where the programs are
	netEnv        = "VITRINE_TEST_NET"        // the network byte of the supervisor's mesh
)

func TestReplicasShareAPort(t *testing.T) {
	w := newWorld(t)
	w.apply(t, deployment("web", 3, "serve", "8080"))
	pods := w.settled(t)
	if len(pods) != 3 {
		t.Fatalf("%d pods: %s", len(pods), w.describe())
	}
	for i := range pods {
		p := &pods[i]
		body, err := get(p, "/")
		want := fmt.Sprintf("%s %d %s", p.Workload.Name, os.Getuid(), p.Workload.CaseIP)
		if err != nil || body != want {
			t.Errorf("pod %s answers %q, %v; want %q", p.Workload.Name, body, err, want)
		}
		if body, err := fetch(netip.AddrPortFrom(p.Workload.IP, mesh.PortHealth), "/healthz/ready"); err != nil || body != "ready\n" {
			t.Errorf("health of %s: %q, %v", p.Workload.Name, body, err)
		}
		eventually(t, func() error {
			body, err := fetch(netip.AddrPortFrom(p.Workload.IP, mesh.PortMerged), "/stats/prometheus")
			if err == nil && requests(body) != 1 {
				err = fmt.Errorf("metrics count %d requests, want 1:\n%s", requests(body), body)
			}
			return err
		})
	}
	eventually(t, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, p := range pods {
			if want := p.Workload.Name + "/app: serving on 8080"; !slices.Contains(w.output, want) {
				return fmt.Errorf("output %q lacks %q", w.output, want)
			}
		}
		return nil
	})
}

// printed waits for a line of some program.
func (w *world) printed(t *testing.T, line string) {
	t.Helper()
	eventually(t, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !slices.ContainsFunc(w.output, func(s string) bool { return strings.HasSuffix(s, ": "+line) }) {
			return fmt.Errorf("nobody printed %q: %q", line, w.output)
		}
		return nil
	})
}

// TestLogsOfOnePod: the pods of a StatefulSet have the names of those before
// them, and only their own lines.
func TestLogsOfOnePod(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		w, detach := reopen(t, dir)
		set := deployment("kv", 1, "serve", "8080")
		set.Kind = mesh.KindStatefulSet
		w.apply(t, set)
		w.settled(t)
		w.printed(t, "serving on 8080")
		lines := 0
		if err := w.sup.Logs(t.Context(), local.LogOptions{Targets: []string{"kv-0"}, Tail: -1}, func(_, _ string, line []byte) error {
			if string(line) == "serving on 8080" {
				lines++
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		if lines != 1 {
			t.Errorf("%d lines, want the one of this pod", lines)
		}
		err := w.sup.Logs(t.Context(), local.LogOptions{Targets: []string{"kv-0", "kv-1"}, Tail: -1}, func(string, string, []byte) error {
			return errors.New("lines, though one of the names is wrong")
		})
		if want := "nothing is called \"kv-1\""; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
		w.apply(t)
		eventually(t, func() error {
			if pods := w.sup.Pods(); len(pods) > 0 {
				return errors.New(w.describe())
			}
			return nil
		})
		detach()
	}
}

// requests sums istio_requests_total.
func requests(metrics string) int {
	sum := 0.0
	for line := range strings.Lines(metrics) {
		if rest, ok := strings.CutPrefix(line, "istio_requests_total{"); ok {
			_, value, _ := strings.Cut(rest, "} ")
			v, _, _ := strings.Cut(strings.TrimSpace(value), " ")
			f, _ := strconv.ParseFloat(v, 64)
			sum += f
		}
	}
	return int(sum)
}

func TestScaleDownKeepsMetrics(t *testing.T) {
	w := newWorld(t)
	w.apply(t, deployment("web", 1, "serve", "8080"))
	p := w.settled(t)[0]
	for range 3 {
		if _, err := get(&p, "/"); err != nil {
			t.Fatal(err)
		}
	}
	w.apply(t)
	eventually(t, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !slices.Contains(w.gone, p.Workload.Key()) {
			return errors.New("the pod is not gone")
		}
		return nil
	})
	w.mu.Lock()
	final := w.finals[p.Workload.Key()]
	w.mu.Unlock()
	if n := requests(final); n != 3 {
		t.Errorf("the last metrics count %d requests, want 3:\n%s", n, final)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "pods", p.Workload.Key())); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the run directory is left: %v", err)
	}
}

func TestCrashRestartsInTheSameCase(t *testing.T) {
	w := newWorld(t)
	w.apply(t, deployment("web", 1, "serve", "8080"))
	before := w.settled(t)[0]
	var after local.PodStatus
	for n := 1; n <= 2; n++ {
		now := w.sup.Pods()[0]
		if _, err := get(&now, fmt.Sprintf("/exit?code=%d", 40+n)); err == nil && n == 0 {
			t.Fatal("the program answered and should have ended")
		}
		eventually(t, func() error {
			after = w.sup.Pods()[0]
			if n == 1 && (after.Restarts != 1 || !after.Workload.Ready) { // the first restart is at once
				return fmt.Errorf("restarts %d, ready %v, want 1 and true", after.Restarts, after.Workload.Ready)
			}
			if last := after.Status.Containers[0].LastExit; last == nil || last.Code != 40+n {
				return fmt.Errorf("last exit %+v", last)
			}
			return nil
		})
	}
	// The second waits for ten seconds. Who looks later than that sees that it did.
	c := after.Status.Containers[0]
	waits := after.Restarts == 1 && after.Status.Reason == pod.ReasonCrashLoop && !after.Workload.Ready
	if late := after.Restarts == 2 && c.Since.Sub(c.LastExit.Finished) > 9*time.Second; !waits && !late {
		t.Errorf("after the second crash: reason %q, ready %v, %+v", after.Status.Reason, after.Workload.Ready, c)
	}
	if after.ProxyPID != before.ProxyPID || after.Workload.IP != before.Workload.IP {
		t.Errorf("the proxy changed from %d to %d", before.ProxyPID, after.ProxyPID)
	}
}

func TestProxyDeathEndsTheProgramAndIsMended(t *testing.T) {
	w := newWorld(t)
	w.apply(t, deployment("web", 1, "serve", "8080"))
	before := w.settled(t)[0]
	program := before.Status.Containers[0].PID
	if err := syscall.Kill(before.ProxyPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if err := syscall.Kill(program, 0); !errors.Is(err, syscall.ESRCH) {
			return errors.New("the program is still there")
		}
		now := w.sup.Pods()[0]
		if !now.Workload.Ready || now.ProxyPID == before.ProxyPID {
			return errors.New(w.describe())
		}
		return nil
	})
	now := w.sup.Pods()[0]
	if now.Workload.Name != before.Workload.Name || now.Workload.IP != before.Workload.IP || now.Restarts != 1 || now.Crashes != 1 {
		t.Errorf("pod came back as %s %s with %d restarts", now.Workload.Name, now.Workload.IP, now.Restarts)
	}
	if body, err := get(&now, "/"); err != nil || !strings.HasPrefix(body, now.Workload.Name) {
		t.Errorf("it answers %q, %v", body, err)
	}
}

// TestProxyThatCannotStartSaysWhy: also before it has a log.
func TestProxyThatCannotStartSaysWhy(t *testing.T) {
	w := newWorld(t)
	inTheWay := filepath.Join(w.dir, "data", "pods") // as a file
	if err := errors.Join(os.MkdirAll(filepath.Dir(inTheWay), 0o700), os.WriteFile(inTheWay, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	w.apply(t, deployment("web", 1, "serve", "8080"))
	eventually(t, func() error {
		if pods := w.sup.Pods(); len(pods) != 1 || pods[0].Crashes == 0 {
			return errors.New(w.describe())
		}
		return nil
	})
	if st := w.sup.Pods()[0].Status; !strings.Contains(st.Message, inTheWay) || !strings.Contains(st.Message, "--data-dir") || strings.Contains(st.Message, "\n") {
		t.Errorf("the pod says %q, want one line with %s and --data-dir", st.Message, inTheWay)
	}
}

func TestRollingUpdateLosesNoRequest(t *testing.T) {
	w := newWorld(t)
	w.plane.SetServices("test", []mesh.Service{{
		ServiceRef: mesh.ServiceRef{Name: "web", Namespace: "default"}, Selector: map[string]string{"app": "web"},
		Ports: []mesh.ServicePort{{Name: "http", Port: 80, TargetPort: 8080, Protocol: mesh.ProtocolHTTP}},
	}})
	load := deployment("load", 1, "load", "http://web")
	set := deployment("web", 2, "serve", "8080")
	w.apply(t, set, load)
	old := w.settled(t)
	old = slices.DeleteFunc(old, func(p local.PodStatus) bool { return p.Workload.Owner != "web" })
	w.printed(t, "loading")
	set.Labels = map[string]string{"app": "web", "version": "v2"}
	w.apply(t, set, load)
	least := len(old)
	eventually(t, func() error {
		ready := 0
		for _, p := range w.sup.Pods() {
			if p.Workload.Ready && p.Workload.Owner == "web" {
				ready++
			}
		}
		least = min(least, ready)
		if !w.sup.State().Settled {
			return errors.New(w.describe())
		}
		return nil
	})
	if least < 2 {
		t.Errorf("only %d pods were ready at one time, want 2 always", least)
	}
	for _, p := range w.sup.Pods() {
		if p.Stopping || p.Workload.Owner != "web" {
			continue
		}
		if p.Workload.Version() != "v2" || p.Template == old[0].Template {
			t.Errorf("pod %s is of version %q", p.Workload.Name, p.Workload.Version())
		}
	}
	keys, err := w.sup.Restart(t.Context(), []string{"default/web"})
	if err != nil || len(keys) != 2 {
		t.Fatalf("restart: %v, %v", keys, err)
	}
	for _, p := range w.settled(t) {
		if !p.Stopping && slices.Contains(keys, p.Workload.Key()) {
			t.Errorf("pod %s was not replaced", p.Workload.Key())
		}
	}
	eventually(t, func() error {
		for _, p := range w.sup.Pods() {
			if p.Stopping {
				return errors.New(w.describe())
			}
		}
		return nil
	})
	w.apply(t, set)
	w.printed(t, "sent true failed 0")
	if _, err := w.sup.Restart(t.Context(), []string{"nobody"}); err == nil {
		t.Error("restart of a name that does not exist succeeds")
	}
}

func TestStatefulSetKeepsNamesAndAddresses(t *testing.T) {
	w := newWorld(t)
	set := deployment("db", 2, "serve", "8080")
	set.Kind = mesh.KindStatefulSet
	w.apply(t, set)
	before := w.settled(t)
	if before[0].Workload.Name != "db-0" || before[1].Workload.Name != "db-1" {
		t.Fatalf("pods: %s", w.describe())
	}
	set.Labels = map[string]string{"app": "db", "version": "v2"}
	w.apply(t, set)
	after := w.settled(t)
	for i := range after {
		a, b := &before[i].Workload, &after[i].Workload
		if a.Name != b.Name || a.IP != b.IP || b.Version() != "v2" {
			t.Errorf("%s %s became %s %s version %q", a.Name, a.IP, b.Name, b.IP, b.Version())
		}
	}
}

func TestJob(t *testing.T) {
	for name, tc := range map[string]struct {
		code    string
		restart mesh.RestartPolicy
		phase   pod.Phase
		pods    int
	}{
		"succeeds": {"0", mesh.RestartNever, pod.Succeeded, 2},
		"fails":    {"5", mesh.RestartNever, pod.Failed, 1},
		// Its program is started again in its pod, until that is too often.
		"fails in place": {"5", mesh.RestartOnFailure, pod.Failed, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			set := deployment("migrate", 1, "exit", tc.code)
			set.Kind, set.Restart, set.Completions = mesh.KindJob, tc.restart, 2
			w.apply(t, set)
			// While one runs, the Job has settled: it might run for days.
			eventually(t, func() error {
				pods := w.sup.Pods()
				if len(pods) < tc.pods || slices.ContainsFunc(pods, func(p local.PodStatus) bool { return !p.Status.Phase.Ended() || p.ProxyPID != 0 }) {
					return errors.New(w.describe())
				}
				return nil
			})
			pods := w.settled(t)
			if len(pods) != tc.pods {
				t.Fatalf("%d pods, want %d: %s", len(pods), tc.pods, w.describe())
			}
			for _, p := range pods {
				if p.Status.Phase != tc.phase || p.Workload.Ready {
					t.Errorf("pod %s: phase %s", p.Workload.Name, p.Status.Phase)
				}
			}
			// It is listed, and no workload any more that anybody scrapes or calls.
			eventually(t, func() error {
				for _, p := range w.plane.Snapshot().Workloads {
					return fmt.Errorf("%s is a workload yet", p.Key())
				}
				return nil
			})
			if left := w.sup.Pods(); len(left) != tc.pods {
				t.Errorf("%d pods are listed, want %d", len(left), tc.pods)
			}
			var lines []string
			err := w.sup.Logs(t.Context(), local.LogOptions{Targets: []string{pods[0].Workload.Name}, Tail: -1},
				func(_, _ string, line []byte) error { lines = append(lines, string(line)); return nil })
			want, most := "leaving with "+tc.code, 1
			if tc.restart == mesh.RestartOnFailure {
				most = 2 // the second run may be ended before it says anything
			}
			if err != nil || len(lines) == 0 || len(lines) > most || slices.ContainsFunc(lines, func(l string) bool { return l != want }) {
				t.Errorf("log %q, %v; want %q, at most %d times", lines, err, want, most)
			}
			eventually(t, func() error {
				w.mu.Lock()
				defer w.mu.Unlock()
				ran := map[string]bool{}
				for _, line := range w.output {
					name, _, _ := strings.Cut(line, "/")
					ran[name] = true
				}
				if len(ran) != tc.pods {
					return fmt.Errorf("%d pods ran, want %d: %q", len(ran), tc.pods, w.output)
				}
				return nil
			})
		})
	}
}
