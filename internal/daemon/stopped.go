package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"
)

// stoppedPoll is how often a control plane that does not answer is looked at.
const stoppedPoll = 250 * time.Millisecond

// stoppedError says that a job control signal (Ctrl-Z in the terminal of
// `vitrine up`) has stopped the control plane: it will not answer, however long
// one waits, while the workloads and their proxies go on.
type stoppedError struct{ pid int32 }

func (e *stoppedError) Error() string {
	return fmt.Sprintf("the control plane (process %d) is stopped, as by Ctrl-Z, and answers nobody: `fg` in its terminal or `kill -CONT %d` lets it go on; "+
		"the workloads are not affected", e.pid, e.pid)
}

// serverWatch ends a request to a control plane that is stopped.
type serverWatch struct {
	answered chan struct{}
	wg       sync.WaitGroup
	cancel   context.CancelCauseFunc
}

// watch begins to look at the process that serves the control socket. The
// context that it returns ends with a stoppedError if that process is stopped.
// end must be called when the answer has begun or will not come, and cancel when
// the context is no longer needed.
func (c *Client) watch(ctx context.Context) (context.Context, *serverWatch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &serverWatch{answered: make(chan struct{}), cancel: cancel}
	w.wg.Go(func() {
		tick := time.NewTicker(stoppedPoll)
		defer tick.Stop()
		for seen := 0; ; {
			select {
			case <-w.answered:
				return
			case <-tick.C:
			}
			if pid := c.server.Load(); pid == 0 || !isStopped(pid) {
				seen = 0
			} else if seen++; seen > 1 { // not one that is just let go on
				cancel(&stoppedError{pid})
				return
			}
		}
	})
	return ctx, w
}

func (w *serverWatch) end() {
	close(w.answered)
	w.wg.Wait()
}

// answer is the body of a response; closing it ends the request's context.
type answer struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (a answer) Close() error {
	defer a.cancel(nil)
	return a.ReadCloser.Close()
}

// isStopped reports whether a process is stopped by a signal
// (proc_pid_stat(5)).
func isStopped(pid int32) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(int(pid)) + "/stat")
	if err != nil {
		return false
	}
	_, state, ok := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	return ok && len(state) > 0 && state[0] == 'T'
}
