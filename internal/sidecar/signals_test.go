package sidecar

import (
	"log/slog"
	"os/exec"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// lateReport is a place where a program runs long before its start is reported.
type lateReport struct {
	pod.Case
	pid  int
	done chan struct{} // closed when the program has ended
}

func (p *lateReport) Start(pod.Program) (pod.Process, error) {
	<-time.NewTimer(time.Minute).C // by the test's clock
	return reported{ended{p.done}, p.pid}, nil
}

type reported struct {
	ended
	pid int
}

func (p reported) PID() int { return p.pid }

// TestKeyDuringTheStart: a program that handles a signal got it from the terminal
// although nothing is known of it yet, and must not get it twice. One that does
// not handle it may have been born just after, and must not miss it.
func TestKeyDuringTheStart(t *testing.T) {
	whateverItHandles(t, "USR1", func(t *testing.T, pid int, handles bool) {
		t.Helper()
		s := foreground()
		if s.reached(syscall.SIGUSR1) {
			t.Error("somebody got a signal before the start")
		}
		end := runs(t, s, pid)
		synctest.Wait()
		if got := s.reached(syscall.SIGUSR1); got != handles {
			t.Errorf("reached is %v during the start, want %v", got, handles)
		}
		end()
		if !s.reached(syscall.SIGUSR1) {
			t.Error("a signal is to be sent to a program that has ended")
		}
	})
}

// TestStopIsRepeated: a second SIGTSTP is for a program alone that does not see it.
func TestStopIsRepeated(t *testing.T) {
	whateverItHandles(t, "TSTP", func(t *testing.T, pid int, handles bool) {
		t.Helper()
		s := foreground()
		if !s.keepsStop() {
			t.Error("a signal is to be sent although there is no program")
		}
		end := runs(t, s, pid)
		<-time.NewTimer(2 * time.Minute).C // by the test's clock
		if got := s.keepsStop(); got != handles {
			t.Errorf("keepsStop is %v, want %v", got, handles)
		}
		end()
	})
}

// whateverItHandles tests with a program for each thing that it can do about a signal,
// which it has done already.
func whateverItHandles(t *testing.T, sig string, test func(t *testing.T, pid int, handles bool)) {
	t.Helper()
	for name, tc := range map[string]struct {
		trap    string
		handles bool
	}{
		"handled": {"trap : " + sig + "; ", true},
		"ignored": {`trap "" ` + sig + "; ", true},
		"default": {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("sh", "-c", tc.trap+"echo up; read x")
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := stdout.Read(make([]byte, 8)); err != nil {
				t.Error(err)
			}
			synctest.Test(t, func(t *testing.T) { test(t, cmd.Process.Pid, tc.handles) })
			stdin.Close()
			_ = cmd.Wait() // read fails at the end of its input
		})
	}
}

// runs lets s run the process as a program whose start it learns of late, until end is
// called.
func runs(t *testing.T, s *sidecar, pid int) (end func()) {
	t.Helper()
	place := &lateReport{pid: pid, done: make(chan struct{})}
	over := make(chan struct{})
	go func() {
		defer close(over)
		s.runtime.Run(t.Context(), place, pod.Hooks{})
	}()
	return func() {
		close(place.done)
		<-over
	}
}

// foreground is a sidecar of one program on its caller's terminal.
func foreground() *sidecar {
	b := &pod.Bootstrap{
		Workload:   mesh.Workload{Namespace: "default", Name: "tool"},
		Foreground: true,
		Set: mesh.WorkloadSet{
			Restart: mesh.RestartNever, GracePeriod: time.Minute,
			Containers: []mesh.Container{{Name: "tool", Args: []string{"tool"}}},
		},
	}
	log := slog.New(slog.DiscardHandler)
	return &sidecar{b: b, log: log, runtime: pod.New(pod.Options{Bootstrap: b, Log: log})}
}
