package local_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// programOf waits until the supervisor knows the program of a pod, and returns its pid.
func (w *world) programOf(t *testing.T, load *mesh.Workload) int {
	t.Helper()
	pid := 0
	eventually(t, func() error {
		for _, p := range w.sup.Pods() {
			if p.Workload.Key() == load.Key() && len(p.Status.Containers) == 1 && p.Status.Containers[0].PID != 0 {
				pid = p.Status.Containers[0].PID
				return nil
			}
		}
		return errors.New(w.describe())
	})
	return pid
}

// inState waits until processes are stopped, or until none is.
func inState(t *testing.T, stopped bool, pids ...int) {
	t.Helper()
	eventually(t, func() error {
		for _, pid := range pids {
			data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
			if err != nil {
				return err
			}
			if strings.Contains(string(data), "State:\tT") != stopped {
				return fmt.Errorf("process %d: stopped %t, want %t", pid, !stopped, stopped)
			}
		}
		return nil
	})
}

// TestJobControl presses Ctrl-Z in a shell and goes on with fg: the program and
// the process that the shell knows stop and continue together.
func TestJobControl(t *testing.T) {
	w := newWorld(t)
	inner, load := w.foreground(t, "cat")
	screen, tty := openTerminal(t)
	cmd := exec.Command("bash", "--norc", "--noprofile", "--noediting", "-i")
	cmd.Env = slices.Concat(inner.Env, []string{"PS1=prompt> ", "HISTFILE="})
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	var seen strings.Builder
	see := func(want string) {
		t.Helper()
		if err := screen.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		for {
			if before, after, ok := strings.Cut(seen.String(), want); ok {
				t.Logf("the terminal shows %q", before+want)
				seen.Reset()
				seen.WriteString(after)
				return
			}
			n, err := screen.Read(buf)
			if err != nil {
				t.Fatalf("the terminal shows %q, want %q: %v", seen.String(), want, err)
			}
			seen.Write(buf[:n])
		}
	}
	press := func(keys string) {
		t.Helper()
		if _, err := io.WriteString(screen, keys); err != nil {
			t.Fatal(err)
		}
	}
	see("prompt> ")
	press(strings.Join(inner.Args, " ") + "\n")
	program := w.programOf(t, &load)
	press("one\n")
	see("one\r\none\r\n") // echoed, and answered
	proxy := w.proxyOf(t, &load)
	for range 2 {
		press("\x1a")
		see("Stopped")
		see("prompt> ")
		inState(t, true, proxy, program)
		press("echo a$((1+1))b\n")
		see("\na2b\r\n")
		see("prompt> ")
		press("fg\n")
		inState(t, false, proxy, program)
		see("sidecar")
		press("two\n")
		see("two\r\ntwo\r\n")
	}
	press("\x04")
	see("prompt> ")
	press("echo code $?; exit\n")
	see("\ncode 0\r\n")
	if err := cmd.Wait(); err != nil {
		t.Errorf("the shell ended with %v", err)
	}
}

// proxyOf is the process of a pod that runs.
func (w *world) proxyOf(t *testing.T, load *mesh.Workload) int {
	t.Helper()
	for _, p := range w.sup.Pods() {
		if p.Workload.Key() == load.Key() {
			return p.ProxyPID
		}
	}
	t.Fatal(w.describe())
	return 0
}

// TestStopSignalsWithoutATerminal sends SIGTSTP and SIGCONT to the process that
// stands for the program alone.
func TestStopSignalsWithoutATerminal(t *testing.T) {
	w := newWorld(t)
	for name, tc := range map[string]struct {
		script string
		stops  bool
	}{
		"default": {"echo up; while read -r line; do echo $line; done", true},
		// read comes back when its time is over, with a part of the line if there is one.
		"handled": {"trap 'echo caught' TSTP; echo up; until read -r -t 0.05 part; do line+=$part; done; echo $line$part", false},
		"ignored": {"trap '' TSTP; echo up; while read -r line; do echo $line; done", false},
	} {
		t.Run(name, func(t *testing.T) {
			cmd, load := w.foreground(t, "bash", "-c", tc.script)
			// A group of its own, as a shell gives every job: the kernel does not stop
			// those of an orphaned one.
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, stdout, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			cmd.Stdout = stdout
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// If it stays stopped, it must not stop this test.
			defer time.AfterFunc(patience, func() { _ = cmd.Process.Kill() }).Stop()
			stdout.Close()
			if err := out.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			expect := func(want string) {
				t.Helper()
				got := make([]byte, len(want))
				if n, err := io.ReadFull(out, got); string(got[:n]) != want || err != nil {
					t.Fatalf("read %q, %v; want %q", got[:n], err, want)
				}
			}
			expect("up\n")
			program := w.programOf(t, &load)
			send := func(sig syscall.Signal) {
				t.Helper()
				if err := cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
			}
			send(syscall.SIGTSTP)
			switch {
			case tc.stops:
				inState(t, true, cmd.Process.Pid, program)
				send(syscall.SIGCONT)
				inState(t, false, cmd.Process.Pid, program)
			case name == "handled":
				expect("caught\n")
			}
			if _, err := io.WriteString(stdin, "on\n"); err != nil {
				t.Fatal(err)
			}
			stdin.Close()
			expect("on\n")
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}
