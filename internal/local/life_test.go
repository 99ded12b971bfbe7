package local_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/local"
	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// ask sends a request to a port of the pod's proxy and returns status and body.
func ask(t *testing.T, p *local.PodStatus, method string, port uint16, path string) (int, string) {
	t.Helper()
	c := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+netip.AddrPortFrom(p.Workload.IP, port).String()+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(body)
}

// TestAdminOfARealProxy calls every command that the admin lists.
func TestAdminOfARealProxy(t *testing.T) {
	w := newWorld(t)
	w.apply(t, deployment("web", 1, "serve", "8080"))
	p := w.settled(t)[0]
	_, help := ask(t, &p, "GET", mesh.PortAdmin, "/help")
	called := 0
	for line := range strings.Lines(help) {
		path, about, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok || path[0] != '/' {
			continue
		}
		path, post := strings.CutSuffix(path, " (POST)")
		method := map[bool]string{false: "GET", true: "POST"}[post]
		if path == "/quitquitquit" || path == "/healthcheck/fail" {
			continue // below
		}
		called++
		if code, body := ask(t, &p, method, mesh.PortAdmin, path); code != http.StatusOK {
			t.Errorf("%s %s (%s): %d %s", method, path, about, code, body)
		}
	}
	if called < 12 {
		t.Errorf("only %d commands are listed:\n%s", called, help)
	}
	if _, body := ask(t, &p, "POST", mesh.PortAdmin, "/logging?level=debug"); body != "active loggers:\n  proxy: debug\n" {
		t.Errorf("logging: %q", body)
	}

	// A failed health check takes the pod out of service, not down.
	wantReady := func(ready bool, code int) {
		t.Helper()
		eventually(t, func() error {
			if got, body := ask(t, &p, "GET", mesh.PortHealth, "/healthz/ready"); got != code {
				return fmt.Errorf("health says %d %s", got, body)
			}
			if w.sup.Pods()[0].Workload.Ready != ready {
				return errors.New(w.describe())
			}
			return nil
		})
	}
	ask(t, &p, "POST", mesh.PortAdmin, "/healthcheck/fail")
	wantReady(false, http.StatusServiceUnavailable)
	ask(t, &p, "POST", mesh.PortAdmin, "/healthcheck/ok")
	wantReady(true, http.StatusOK)

	if code, body := ask(t, &p, "POST", mesh.PortAdmin, "/quitquitquit"); code != http.StatusOK || body != "OK\n" {
		t.Errorf("quitquitquit: %d %q", code, body)
	}
	w.printed(t, "terminated") // not killed
	eventually(t, func() error {
		for _, now := range w.sup.Pods() {
			if now.Workload.Ready && now.ProxyPID != p.ProxyPID {
				return nil
			}
		}
		return errors.New(w.describe())
	})
}

// children lists the direct children of a process.
func children(t *testing.T, pid int) []int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, f := range files {
		data, _ := os.ReadFile(f) // a thread may have ended
		for field := range strings.FieldsSeq(string(data)) {
			if n, err := strconv.Atoi(field); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

// killAgent kills P1 of a pod.
func killAgent(t *testing.T, p *local.PodStatus) {
	t.Helper()
	agents := children(t, p.ProxyPID)
	if len(agents) != 1 {
		t.Fatalf("children of the proxy: %v", agents)
	}
	if err := syscall.Kill(agents[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// TestAgentDeathEndsThePodAndIsMended kills P1, which takes the whole case with
// it: P0 notices, ends, and is started again with a new case.
func TestAgentDeathEndsThePodAndIsMended(t *testing.T) {
	w := newWorld(t)
	w.apply(t, deployment("web", 1, "serve", "8080"))
	before := w.settled(t)[0]
	killAgent(t, &before)
	program := before.Status.Containers[0].PID
	eventually(t, func() error {
		for _, pid := range []int{program, before.ProxyPID} {
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("process %d is still there: %s", pid, w.describe())
			}
		}
		if now := w.sup.Pods()[0]; !now.Workload.Ready || now.ProxyPID == before.ProxyPID {
			return errors.New(w.describe())
		}
		return nil
	})
	now := w.sup.Pods()[0]
	if now.Workload.Name != before.Workload.Name || now.Workload.IP != before.Workload.IP || now.Crashes != 1 {
		t.Errorf("pod came back as %s %s after %d crashes", now.Workload.Name, now.Workload.IP, now.Crashes)
	}
	if body, err := get(&now, "/"); err != nil || !strings.HasPrefix(body, now.Workload.Name) {
		t.Errorf("it answers %q, %v", body, err)
	}
}

// TestCauseOfAnEndIsTold: the death of P1 makes all that uses the case fail, too. It
// alone is told, and once.
func TestCauseOfAnEndIsTold(t *testing.T) {
	w := newWorld(t)
	set := deployment("migrate", 1, "signals")
	set.Kind, set.Restart = mesh.KindJob, mesh.RestartNever
	w.apply(t, set)
	w.printed(t, "waiting")
	w.programOf(t, &w.sup.Pods()[0].Workload) // the supervisor knows of it, too
	p := w.sup.Pods()[0]
	killAgent(t, &p)
	eventually(t, func() error { // its process has ended, and said why
		if now := w.sup.Pods()[0]; now.Status.Phase != pod.Failed || now.ProxyPID != 0 {
			return errors.New(w.describe())
		}
		return nil
	})
	if st := w.sup.Pods()[0].Status; st.Reason != pod.ReasonProxyError || st.Message != "case: the case's agent ended: signal: killed" {
		t.Errorf("told is %s %q", st.Reason, st.Message)
	}
}

// TestStartFromTheLastGoodConfiguration starts a pod's process while there is
// no control plane: it serves with the configuration that it had last.
func TestStartFromTheLastGoodConfiguration(t *testing.T) {
	dir := t.TempDir()
	w, detach := reopen(t, dir)
	w.apply(t, deployment("web", 1, "serve", "8080"))
	p := w.settled(t)[0]
	if _, err := get(&p, "/"); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "data", "pods", p.Workload.Key(), "config.last-good")
	eventually(t, func() error { // it is saved a moment after it is in force
		_, err := os.Stat(state)
		return err
	})
	detach()
	if err := syscall.Kill(p.ProxyPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(dir, "pods", p.Workload.Key())
	eventually(t, func() error {
		if pid, err := pod.Holder(run); err != nil || pid != 0 {
			return fmt.Errorf("the pod's directory is held by %d, %w", pid, err)
		}
		return nil
	})
	cmd := exec.Command(binaries.proxy, "sidecar", "--bootstrap", filepath.Join(run, pod.BootstrapFile))
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the pod ended with %v", err)
		}
	}()
	eventually(t, func() error {
		body, err := get(&p, "/")
		if err == nil && !strings.HasPrefix(body, p.Workload.Name) {
			err = fmt.Errorf("it answers %q", body)
		}
		return err
	})
	_, metrics := ask(t, &p, "GET", mesh.PortMerged, "/stats/prometheus")
	if !strings.Contains(metrics, "vitrine_xds_connected 0\n") {
		t.Errorf("the proxy says it is connected:\n%s", grepLines(metrics, "vitrine_xds"))
	}
}

func grepLines(text, part string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestFollowedLogSurvivesRotation follows a program that prints more than one log
// file holds, several times over: every line comes once and in order.
func TestFollowedLogSurvivesRotation(t *testing.T) {
	const lines, width = 20000, 1200 // 24 MB: the file is rotated twice
	w := newWorld(t)
	set := deployment("printer", 1)
	set.Kind, set.Restart = mesh.KindJob, mesh.RestartNever
	// In portions, so that the reader, which looks ten times a second, is in
	// time: three files are all that is kept.
	set.Containers[0].Args = []string{"sh", "-c", fmt.Sprintf(
		`awk 'BEGIN { for (i = 0; i < %d; i++) { printf "%%0%dd\n", i; if (i %% 2000 == 1999) system("sleep 0.3") } }'; echo end`, lines, width)}
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	next, ended := 0, false
	var wrong []string
	var wg sync.WaitGroup
	wg.Go(func() {
		err := w.sup.Logs(ctx, local.LogOptions{Targets: []string{"printer"}, Follow: true, Tail: -1}, func(_, _ string, line []byte) error {
			mu.Lock()
			defer mu.Unlock()
			if string(line) == "end" {
				ended = true
				return nil
			}
			if n, err := strconv.Atoi(string(line)); err != nil || n != next || len(line) != width {
				wrong = append(wrong, fmt.Sprintf("after line %d came %.40q (%d bytes)", next-1, line, len(line)))
				next = n
			}
			next++
			return nil
		})
		if err != nil {
			t.Errorf("follow: %v", err)
		}
	})
	defer wg.Wait()
	defer cancel()
	w.apply(t, set)
	eventually(t, func() error {
		mu.Lock()
		defer mu.Unlock()
		if !ended {
			return fmt.Errorf("%d lines so far", next)
		}
		return nil
	})
	mu.Lock()
	defer mu.Unlock()
	if next != lines || len(wrong) > 0 {
		t.Errorf("%d lines, want %d; %q", next, lines, wrong[:min(3, len(wrong))])
	}
	files, _ := filepath.Glob(filepath.Join(w.dir, "data", "logs", "default", "*", "app.log*"))
	slices.Sort(files)
	if len(files) != pod.LogFiles {
		t.Errorf("log files %v, want %d", files, pod.LogFiles)
	}
}
