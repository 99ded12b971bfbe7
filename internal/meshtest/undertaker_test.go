package meshtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestMain lets the test binary be a test process that is to be killed, and its
// undertaker.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 3 && os.Args[1] == undertakerArg:
		os.Exit(buried(os.Args[2]))
	case len(os.Args) == 3 && os.Args[1] == "doomed":
		os.Exit(doomed(os.Args[2]))
	}
	os.Exit(m.Run())
}

// doomed is a test process with an undertaker, two processes of its own, one of
// which left the session, and no end.
func doomed(root string) int {
	undertaker, err := startUndertaker(root)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	exe := exec.Command(filepath.Join(root, "bin", "program"), "1000")
	env := exec.Command("sleep", "1000")
	env.Env = []string{"BASE=" + root + "/story"}
	for _, cmd := range []*exec.Cmd{exe, env} {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: cmd == env}
		if err := cmd.Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	fmt.Println("ready") //nolint:forbidigo // told to the test
	// With nobody to refer to its pipe the collector would close that, as if we had ended.
	_ = undertaker.cmd.Wait()
	return 1
}

// TestNothingOutlivesAKilledTest: SIGKILL leaves neither processes nor files.
func TestNothingOutlivesAKilledTest(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	sleep, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin", "program"), sleep, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "doomed", root)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := newLines(out)
	if got, err := line.next(); err != nil || got != "ready" {
		t.Fatalf("%q, %v", got, err)
	}
	// The kernel shows the environment of a process a moment after its start.
	Eventually(t, func() error {
		if n := len(processesOf(root)); n != 2 {
			return fmt.Errorf("%d processes, want 2", n)
		}
		return nil
	})
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	Eventually(t, func() error {
		if left := processesOf(root); len(left) > 0 {
			return fmt.Errorf("%d processes are left, for example %d", len(left), left[0].Pid)
		}
		if _, err := os.Stat(root); !os.IsNotExist(err) {
			return fmt.Errorf("%s is left: %w", root, err)
		}
		return nil
	})
}
