package local_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local"
	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// TestHistoryOutlivesTheSupervisor: the agent of a pod is killed, which is one
// restart, whatever the proxy tried before it gave up; then there is another
// control plane, which tells the same age and the same number.
func TestHistoryOutlivesTheSupervisor(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "odd[name") // which is no pattern
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w, detach := reopen(t, dir)
	set := deployment("web", 1, "serve", "8080")
	w.apply(t, set)
	first := w.settled(t)[0]
	killAgent(t, &first)
	eventually(t, func() error {
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
	eventually(t, func() error {
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

// TestJobThatOthersEnded: a Job whose pod is made to end while there is no control
// plane is neither done nor has it failed for good.
func TestJobThatOthersEnded(t *testing.T) {
	dir := t.TempDir()
	w, detach := reopen(t, dir)
	set := deployment("migrate", 1, "signals")
	set.Kind, set.Restart, set.BackoffLimit = mesh.KindJob, mesh.RestartNever, 6
	w.apply(t, set)
	w.printed(t, "waiting")
	key := w.sup.Pods()[0].Workload.Key()
	detach()
	client := pod.NewClient(filepath.Join(dir, "pods", key))
	defer client.Close()
	if err := client.Stop(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		pid, err := pod.Holder(filepath.Join(dir, "pods", key))
		if err == nil && pid != 0 {
			err = fmt.Errorf("%d still runs", pid)
		}
		return err
	})

	w, _ = reopen(t, dir)
	eventually(t, func() error {
		if len(w.sup.Pods()) != 1 {
			return errors.New(w.describe())
		}
		return nil
	})
	p := w.sup.Pods()[0]
	if p.Workload.Key() != key || p.Status.Phase != pod.Failed || p.Status.Reason != pod.ReasonError ||
		p.Status.Message != "it was made to end before it was done" {
		t.Errorf("%s: %s", key, w.describe())
	}
	w.apply(t, set)
	if st := w.sup.State(); st.Settled && len(st.Pods) == 1 { // after ten seconds it has another one
		t.Error("the Job is settled, though its only pod was not done")
	}
}

// TestFailedJobStaysFailed: a Job that has failed for the death of a proxy is told to
// have failed, its containers with it, and the next control plane does not run it
// again.
func TestFailedJobStaysFailed(t *testing.T) {
	dir := t.TempDir()
	w, detach := reopen(t, dir)
	set := deployment("migrate", 1, "signals")
	set.Kind, set.Restart = mesh.KindJob, mesh.RestartNever
	w.apply(t, set)
	w.printed(t, "waiting")
	w.programOf(t, &w.sup.Pods()[0].Workload)
	before := w.sup.Pods()[0]
	if err := syscall.Kill(before.ProxyPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	check := func(p *local.PodStatus) {
		t.Helper()
		c := p.Status.Containers
		if p.Workload.Key() != before.Workload.Key() || p.Status.Phase != pod.Failed || p.Status.Reason != pod.ReasonProxyError || p.ProxyPID != 0 {
			t.Errorf("pod %+v", p)
		}
		if len(c) != 1 || c[0].State != pod.Terminated || c[0].Reason != pod.ReasonError || c[0].PID != 0 || c[0].Ready {
			t.Errorf("containers %+v", c)
		}
	}
	failed := func() error {
		if pods := w.sup.Pods(); len(pods) != 1 || pods[0].Status.Phase != pod.Failed {
			return errors.New(w.describe())
		}
		return nil
	}
	eventually(t, failed)
	check(&w.sup.Pods()[0])
	detach()

	w, _ = reopen(t, dir)
	w.apply(t, set)
	eventually(t, func() error { return errors.Join(failed(), w.unsettled()) })
	check(&w.sup.Pods()[0])
}

// TestProgramThatEndedInBetween: a program of `vitrine run` that ends while there is
// no control plane is gone for the next one, which may know it from its directory.
func TestProgramThatEndedInBetween(t *testing.T) {
	dir := t.TempDir()
	w, detach := reopen(t, dir)
	cmd, load := w.foreground(t, "cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.programOf(t, &load)
	detach()
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	// So is one whose description is lost.
	stray := filepath.Join(dir, "pods", "default", "stray-1")
	if err := os.MkdirAll(stray, 0o700); err != nil {
		t.Fatal(err)
	}

	w, _ = reopen(t, dir)
	for _, key := range []string{load.Key(), "default/stray-1"} {
		eventually(t, func() error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if !slices.Contains(w.gone, key) {
				return fmt.Errorf("%s is not gone; gone are %q", key, w.gone)
			}
			return nil
		})
	}
}

// superviseUntilKilled is a control plane that is going to be killed.
func superviseUntilKilled(dir string) int {
	binaries.dir = os.Getenv(binariesEnv)
	binaries.proxy, binaries.self = filepath.Join(binaries.dir, "vitrine-proxy"), filepath.Join(binaries.dir, "program")
	n, err := strconv.ParseUint(os.Getenv(netEnv), 10, 8)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binaries.net = uint8(n)
	w, _, err := open(dir, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := w.sup.Apply([]mesh.WorkloadSet{deployment("web", 2, "serve", "8080")}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	tick := time.NewTicker(10 * time.Millisecond)
	for range tick.C {
		if w.sup.State().Settled {
			fmt.Fprintln(os.Stdout, "settled")
			break
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	return 0
}

func TestAdoptionAfterTheSupervisorWasKilled(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(binaries.self)
	cmd.Env = append(os.Environ(), supervisorEnv+"="+dir, binariesEnv+"="+binaries.dir, fmt.Sprintf("%s=%d", netEnv, binaries.net))
	var out bytes.Buffer
	cmd.Stderr = &out
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 8)
	if _, err := stdout.Read(line); err != nil {
		cmd.Wait()
		t.Fatalf("the other supervisor: %v\n%s", err, out.String())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()

	// Without a control plane everything goes on.
	holders := map[string]int{}
	dirs, _ := filepath.Glob(filepath.Join(dir, "pods", "default", "*"))
	for _, d := range dirs {
		pid, err := pod.Holder(d)
		if err != nil || pid == 0 {
			t.Errorf("%s: pid %d, %v", d, pid, err)
		}
		holders["default/"+filepath.Base(d)] = pid
	}
	if len(holders) != 2 {
		t.Fatalf("pods that go on: %v\n%s", holders, out.String())
	}
	// A directory whose process is dead is cleared away.
	dead := filepath.Join(dir, "pods", "default", "dead-1")
	if err := os.MkdirAll(dead, 0o700); err != nil {
		t.Fatal(err)
	}

	// The addresses of pods that run are theirs, also when the record is lost.
	if err := os.Remove(filepath.Join(dir, "state.json")); err != nil {
		t.Fatal(err)
	}

	w, _ := reopen(t, dir)
	w.apply(t, deployment("web", 2, "serve", "8080"))
	pods := w.settled(t)
	if len(pods) != 2 {
		t.Fatalf("%d pods: %s", len(pods), w.describe())
	}
	for i := range pods {
		p := &pods[i]
		if holders[p.Workload.Key()] != p.ProxyPID {
			t.Errorf("pod %s has process %d, want the same as before: %d", p.Workload.Key(), p.ProxyPID, holders[p.Workload.Key()])
		}
		eventually(t, func() error {
			_, err := get(p, "/")
			return err
		})
	}
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dead pod's directory is left: %v", err)
	}
}

// A pod that runs and whose description is lost or of another mesh is ended: else
// nobody would show it or stop it, ever.
func TestPodsThatCannotBeTakenOverAreEnded(t *testing.T) {
	dir := t.TempDir()
	w, detach := reopen(t, dir)
	w.apply(t, deployment("web", 2, "serve", "8080"))
	pods := w.settled(t)
	detach()
	old := map[string]int{}
	for i, p := range pods {
		old[p.Workload.Key()] = p.ProxyPID
		path := filepath.Join(dir, "pods", p.Workload.Key(), pod.BootstrapFile)
		boot, err := pod.ReadBootstrap(path)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		index, _ := mesh.IndexOf(boot.Net, boot.Workload.IP)
		boot.Net++
		boot.Workload.IP = mesh.IP(boot.Net, index)
		if _, err := boot.Write(); err != nil {
			t.Fatal(err)
		}
	}

	w, _ = reopen(t, dir)
	w.apply(t, deployment("web", 2, "serve", "8080"))
	for _, p := range w.settled(t) {
		if old[p.Workload.Key()] != 0 {
			t.Errorf("%s was kept", p.Workload.Key())
		}
	}
	for key, pid := range old {
		// It was this process's child before it was forgotten.
		if got, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); got != pid || err != nil {
			t.Errorf("process %d of %s: %d, %v; want it to have ended", pid, key, got, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "pods", key)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("directory of %s: %v", key, err)
		}
	}
}
