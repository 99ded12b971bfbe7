package sidecar

import (
	"bytes"
	"context"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
)

// handleSignals acts on signals until ctx ends; the result can be waited for.
//
// A pod that the supervisor started ends gracefully on SIGTERM and SIGINT. In the
// foreground this process stands for its program: it passes on what it gets,
// unless the terminal sent the signal to the whole process group, of which the
// program is a member.
func (s *sidecar) handleSignals(ctx context.Context) *sync.WaitGroup {
	c := make(chan os.Signal, 16)
	if s.b.Foreground {
		// A signal that the caller had ignored (nohup, a script's background job)
		// stays so, for the program too: handling it here would end that.
		for _, sig := range []os.Signal{
			syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1,
			syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGTSTP, syscall.SIGCONT, syscall.SIGALRM,
		} {
			if !signal.Ignored(sig) {
				signal.Notify(c, sig)
			}
		}
	} else {
		// The supervisor's terminal is not ours, but another one may be.
		signal.Ignore(syscall.SIGHUP)
		signal.Notify(c, syscall.SIGINT, syscall.SIGTERM)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer signal.Stop(c)
		jobs := jobControl{stop: stopSelf}
		for {
			select {
			case <-ctx.Done():
				return
			case sig := <-c:
				if n, ok := sig.(syscall.Signal); ok {
					s.signalled(ctx, n, &jobs)
				}
			}
		}
	})
	return &wg
}

func (s *sidecar) signalled(ctx context.Context, sig syscall.Signal, jobs *jobControl) {
	if !s.b.Foreground {
		s.runtime.Stop(true)
		return
	}
	shared := false
	switch sig {
	case syscall.SIGTSTP:
		shared = inForeground() && s.keepsStop()
	case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGWINCH:
		shared = inForeground() && s.reached(sig)
	case syscall.SIGCONT:
		pid, _ := s.program()
		shared = jobs.resumed(pid)
	default:
	}
	if !shared && s.runtime.Signal("", sig) == 0 {
		// No program runs yet: end before there is one.
		switch sig {
		case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP:
			if s.endedBy == 0 {
				s.endedBy = sig
			}
			s.runtime.Stop(false)
		default:
		}
	}
	if sig == syscall.SIGTSTP {
		pid, over := s.program()
		if over {
			return // and so are we in a moment: whoever waits for our end must get it
		}
		if err := jobs.suspend(ctx, pid); err != nil {
			s.log.WarnContext(ctx, "cannot stop with the program", "error", err)
		}
	}
}

// reached reports whether the program got what the terminal sent to the process group.
// One that is being started may have: it runs, and may have spoken, before its start
// is reported. To one that does not handle sig it is sent in any case then, since
// nobody dies twice.
func (s *sidecar) reached(sig syscall.Signal) bool {
	if pid, over := s.program(); pid != 0 || over {
		return true
	}
	s.runtime.AwaitStarts()
	pid, over := s.program()
	return over || programState(pid).handles(sig)
}

// keepsStop reports whether the program must not get SIGTSTP once more after the
// terminal's. One that leaves it to the kernel may: that changes nothing while it is
// stopped, and it may run again, since a SIGCONT of the shell that we are slow to
// take note of looks, after the next key, like one that the program did not get.
func (s *sidecar) keepsStop() bool {
	pid, _ := s.program()
	st := programState(pid)
	return st.gone || st.handles(syscall.SIGTSTP)
}

// program is the process of the program of a pod in the foreground: 0 if none
// runs, either not yet or, if over, not any more.
func (s *sidecar) program() (pid int, over bool) {
	status, _ := s.runtime.Status()
	c := &status.Containers[0]
	return c.PID, c.PID == 0 && c.State != pod.Waiting
}

// inForeground reports whether our process group is the one that the controlling
// terminal sends its signals to. It asks the process table (proc_pid_stat(5)) and
// leaves the terminal, which may make those who open it wait, alone.
func inForeground() bool {
	data, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return false
	}
	// The name, the only field that can hold a space, ends with the last ")".
	const group, terminalGroup = 2, 5
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	return len(fields) > terminalGroup && fields[group] == fields[terminalGroup]
}
