package sidecar

import (
	"os"
	"syscall"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
)

// overAtOnce is a place where each program has ended when it is looked at.
type overAtOnce struct{ pod.Case }

func (overAtOnce) Start(pod.Program) (pod.Process, error) {
	done := make(chan struct{})
	close(done)
	return ended{done}, nil
}

type ended struct{ done chan struct{} }

func (ended) Signal(syscall.Signal) error { return nil }
func (e ended) Done() <-chan struct{}     { return e.done }
func (ended) Wait() pod.Exit              { return pod.Exit{} }
func (ended) PID() int                    { return os.Getpid() }

// TestStopSignalWithoutAProgram: before the program starts, only this process can
// stop. After its end this process must not: nobody may be there to continue it,
// and its caller waits for the exit code.
func TestStopSignalWithoutAProgram(t *testing.T) {
	s := foreground()
	stops := 0
	jobs := &jobControl{stop: func() error { stops++; return nil }}
	s.signalled(t.Context(), syscall.SIGTSTP, jobs)
	if stops != 1 {
		t.Errorf("stopped %d times before the program's start, want 1", stops)
	}
	s.signalled(t.Context(), syscall.SIGCONT, jobs)
	s.runtime.Run(t.Context(), overAtOnce{}, pod.Hooks{})
	s.signalled(t.Context(), syscall.SIGTSTP, jobs)
	if stops != 1 {
		t.Errorf("stopped %d times, want none after the program's end", stops-1)
	}
}
