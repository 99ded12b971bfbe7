package intercept_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/intercept"
)

// playSidecar is a P0 that waits to be killed.
func playSidecar(ctx context.Context) error {
	c, err := intercept.Start(ctx, intercept.Config{
		IP4: caseIP4, IP6: caseIP6, Hostname: "web-0",
		Files: []intercept.File{{Path: "/vitrine-test-top/file", Data: []byte("x"), Mode: 0o644}},
	})
	if err != nil {
		return err
	}
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	fmt.Fprintln(os.Stdout, "agent", c.PID())
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	if _, err := c.Start(intercept.Program{Args: []string{"/proc/self/exe", "role", "tree"}, Stdout: w, NewSession: true}); err != nil {
		return err
	}
	w.Close()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		return err
	}
	fmt.Fprint(os.Stdout, line)
	return <-ran
}

// ownBinary is a copy of this test binary whose path tells its processes from all
// others of the machine.
func ownBinary(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "p0")
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		tb.Fatal(err)
	}
	defer exe.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := io.Copy(out, exe); err != nil {
		tb.Fatal(err)
	}
	if err := out.Close(); err != nil {
		tb.Fatal(err)
	}
	return path
}

// processesOf lists the processes that run binary.
func processesOf(tb testing.TB, binary string) (pids []int) {
	tb.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		tb.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if link, err := os.Readlink("/proc/" + e.Name() + "/exe"); err == nil && link == binary {
			pids = append(pids, pid)
		}
	}
	return pids
}

// inNamespace lists the processes in a network namespace.
func inNamespace(tb testing.TB, inode string) (pids []string) {
	tb.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		tb.Fatal(err)
	}
	for _, path := range all {
		if link, err := os.Readlink(path); err == nil && link == inode {
			pids = append(pids, path)
		}
	}
	return pids
}

// TestNothingIsLeft kills P0 or P1 with SIGKILL at random moments, the building of
// the case included, a hundred times.
func TestNothingIsLeft(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 10
	}
	binary := ownBinary(t)
	mounts := mountCount(t)
	for round := range rounds {
		killOne(t, binary, round)
		if t.Failed() {
			break
		}
	}
	if got := mountCount(t); got != mounts {
		t.Errorf("%d mounts on the host, %d before", got, mounts)
	}
}

func killOne(t *testing.T, binary string, round int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, "role", "sidecar")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // if the tests are killed
	cmd.WaitDelay = patience
	stdout, w := pipe(t)
	defer stdout.Close()
	cmd.Stdout = w
	err := cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	inode := ""
	_ = stdout.SetReadDeadline(time.Now().Add(patience))
	out := bufio.NewReader(stdout)
	switch round % 3 {
	case 0: // P0 anywhere from the first instruction to a running program
		<-time.NewTimer(time.Duration(rand.IntN(60_000)) * time.Microsecond).C
		_ = cmd.Process.Kill()
	case 1, 2: // with everything running
		var agent int
		agent, inode = readSidecar(t, out)
		if round%3 == 1 {
			_ = cmd.Process.Kill()
		} else if err := syscall.Kill(agent, syscall.SIGKILL); err != nil {
			t.Errorf("kill agent: %v", err)
		}
	}
	if _, err := io.Copy(io.Discard, out); err != nil {
		t.Errorf("round %d: the case has its output open still: %v", round, err)
	}
	err = cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); !ok {
		t.Errorf("round %d: the sidecar ended with %v, want an error", round, err)
	}
	waitFor(t, fmt.Sprintf("the processes of round %d to end", round), func() bool {
		return len(processesOf(t, binary)) == 0
	})
	if inode == "" {
		return
	}
	waitFor(t, fmt.Sprintf("the namespace of round %d to end", round), func() bool {
		return len(inNamespace(t, inode)) == 0
	})
}

// readSidecar waits until the program runs; it gives P1 and its namespace.
func readSidecar(t *testing.T, out *bufio.Reader) (agent int, inode string) {
	t.Helper()
	line, err := out.ReadString('\n')
	if err != nil {
		t.Fatalf("sidecar: %v after %q", err, line)
	}
	if agent, err = strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "agent "))); err != nil {
		t.Fatal(err)
	}
	if inode, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/net", agent)); err != nil {
		t.Fatal(err)
	}
	if line, err = out.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("sidecar: %q, %v", line, err)
	}
	if n := len(inNamespace(t, inode)); n != 4 {
		t.Fatalf("%d processes in the case, want the agent, the program and its two children", n)
	}
	return agent, inode
}

func mountCount(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(data), "\n")
}

// TestAgentDies: P0 learns it at once, and everything that waits is woken.
func TestAgentDies(t *testing.T) {
	c, err := intercept.Start(testContext(t), config(t))
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- c.Run(context.Background()) }()
	p := role(t, c, "trap").ready(t)
	accepted := make(chan error, 1)
	go func() {
		_, err := c.Outbound().Accept()
		accepted <- err
	}()
	if err := syscall.Kill(c.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	within(t, "the case to end", c.Done())
	if err := within(t, "Run to end", ran); err == nil || err.Error() != "the case's agent ended: signal: killed" {
		t.Errorf("Run: %v", err)
	}
	if err := within(t, "Accept to end", accepted); err == nil {
		t.Error("Accept gave a connection")
	}
	within(t, "the program to end", p.Done())
	if exit := p.Wait(); exit != (intercept.Exit{Signal: syscall.SIGKILL}) {
		t.Errorf("the program ended with %v", exit)
	}
	if _, err := c.Start(intercept.Program{Args: []string{"true"}}); err == nil {
		t.Error("a program was started in a dead case")
	}
	if _, err := c.Dial(t.Context(), intercept.Client{}, 80); err == nil {
		t.Error("a dead case was dialed")
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// TestCloseHidesNoDeath: those who use a case close it when it is gone, which makes
// its end none of theirs.
func TestCloseHidesNoDeath(t *testing.T) {
	c, err := intercept.Start(testContext(t), config(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(c.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	within(t, "the case to end", c.Done())
	if err := c.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := c.Run(testContext(t)); err == nil || err.Error() != "the case's agent ended: signal: killed" {
		t.Errorf("Run: %v", err)
	}
}

// TestStartIsCancelled: a Start whose context ends leaves no agent.
func TestStartIsCancelled(t *testing.T) {
	for i := range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
		c, err := intercept.Start(ctx, config(t))
		if err == nil {
			_ = c.Close()
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Start: %v", err)
		}
		cancel()
	}
}

// TestTerminalSignalsDoNotReachTheAgent: Ctrl-C goes to the whole group; P1 stays.
func TestTerminalSignalsDoNotReachTheAgent(t *testing.T) {
	c := startCase(t, config(t))
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGTSTP, syscall.SIGPIPE, syscall.SIGUSR1} {
		if err := syscall.Kill(c.PID(), sig); err != nil {
			t.Fatal(err)
		}
	}
	if exit, _, err := c.Exec(testContext(t), []string{"true"}, nil, "/"); err != nil || exit != (intercept.Exit{}) {
		t.Errorf("after signals: %v, %v", exit, err)
	}
}
