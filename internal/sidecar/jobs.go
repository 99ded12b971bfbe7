package sidecar

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// jobControl lets a shell stop and continue the program through this process,
// which is the one that the shell knows: it stops when the program does, and not
// when the program handles or ignores SIGTSTP. It belongs to one goroutine.
type jobControl struct {
	stop      func() error // stops this process
	suspended bool         // by suspend, and not resumed since
}

// stopWait is how long a program that handles SIGTSTP may take to put the
// terminal in order and stop itself. Other signals wait meanwhile.
const stopWait = 2 * time.Second

// suspend stops this process once the program, which got SIGTSTP, has stopped, and
// returns when it was continued, or when the program goes on. program is 0 before
// the program runs.
func (j *jobControl) suspend(ctx context.Context, program int) error {
	limit := time.NewTimer(stopWait)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		st := programState(program)
		switch {
		case st.stopped, program == 0: // before there is a program only we can stop
			j.suspended = true
			return j.stop()
		case st.ignored.has(syscall.SIGTSTP), st.gone:
			return nil
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// stopSelf stops this process as the default action of SIGTSTP would have, so that
// the shell sees it.
func stopSelf() error {
	if err := syscall.Kill(os.Getpid(), syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return nil
}

// resumed takes note of SIGCONT and reports whether the program got it, too: a
// shell continues the whole process group.
func (j *jobControl) resumed(program int) bool {
	was := j.suspended
	j.suspended = false
	return was && !programState(program).stopped
}

// state is what has to be known of a program to treat it as the terminal and its
// shell do.
type state struct {
	stopped         bool
	gone            bool
	ignored, caught signalSet
}

// handles reports whether the program itself says what sig does to it.
func (st state) handles(sig syscall.Signal) bool { return st.ignored.has(sig) || st.caught.has(sig) }

// signalSet has bit n-1 for signal n, as proc_pid_status(5).
type signalSet uint64

func (s signalSet) has(sig syscall.Signal) bool { return s&(1<<(sig-1)) != 0 }

// programState reads /proc/PID/status (proc_pid_status(5)).
func programState(pid int) state {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return state{gone: true}
	}
	var st state
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch name {
		case "State":
			st.stopped = strings.HasPrefix(value, "T")
			st.gone = strings.HasPrefix(value, "Z")
		case "SigIgn":
			st.ignored = readSignals(value)
		case "SigCgt":
			st.caught = readSignals(value)
		}
	}
	return st
}

func readSignals(mask string) signalSet {
	n, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		return 0
	}
	return signalSet(n)
}
