package pod

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// Exit codes of a program that could not be started, a shell's numbers.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// container keeps one program of the pod running.
type container struct {
	r       *Runtime
	spec    *mesh.Container
	program Program // Args, Env, Dir; files are added when it starts
	restart chan struct{}
	end     <-chan struct{} // closed when its program is to be ended
	backoff Backoff         // only touched by keep
	runs    int             // starts so far, those of Bootstrap.Runs included; only touched by keep

	// Guarded by r.mu.
	status   ContainerStatus
	proc     Process       // nil unless running
	starting chan struct{} // not nil while Start is under way, closed after it
}

func newContainer(r *Runtime, spec *mesh.Container, isInit bool) *container {
	c := &container{r: r, spec: spec, restart: make(chan struct{}, 1), end: r.end}
	if spec.Sidecar != nil {
		c.end = r.last
	}
	c.status = ContainerStatus{Name: spec.Name, Init: isInit, State: Waiting, Reason: ReasonCreating}
	if !isInit && len(r.o.Bootstrap.Set.InitContainers) > 0 {
		c.status.Reason = ReasonInit
	}
	b := r.o.Bootstrap
	if !isInit {
		c.runs = b.Runs[spec.Name]
		c.status.Restarts = max(0, c.runs-1)
	}
	c.program = Program{
		Args: expandAll(spec.Args, b), Env: environment(r.o.Env, b, spec),
		Dir: spec.Dir, NewSession: !b.Foreground,
	}
	return c
}

// process is the running program; nil if there is none. A start under way is
// waited for: the program may run, and have spoken, before we know it.
func (c *container) process() Process {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	for c.starting != nil {
		starting := c.starting
		c.r.mu.Unlock()
		<-starting
		c.r.mu.Lock()
	}
	return c.proc
}

// keep runs the program, again and again as the policy says, and returns when
// it will not be started any more: whether its last end was a success.
func (c *container) keep(ctx context.Context, policy mesh.RestartPolicy) (ok bool) {
	p := c.program
	if b := c.r.o.Bootstrap; b.Foreground {
		p.Stdin, p.Stdout, p.Stderr = os.Stdin, os.Stdout, os.Stderr
	} else if b.LogDir != "" {
		out, err := openOutput(b.LogDir, c.spec.Name)
		if err != nil {
			// The program matters more than its log.
			c.r.o.Log.ErrorContext(ctx, "container runs without a log", "container", c.spec.Name, "error", err)
		} else {
			go out.run()
			defer out.close()
			p.Stdout, p.Stderr = out.w, out.w
		}
	}
	for {
		if c.ending(ctx) {
			c.setTerminated(false, nil)
			return false
		}
		last, asked := c.once(ctx, p)
		ok = last.Code == 0
		again := !c.ending(ctx) && (asked || policy == mesh.RestartAlways || policy == mesh.RestartOnFailure && !ok)
		if !again {
			c.setTerminated(ok, &last)
			return ok
		}
		var delay time.Duration
		if !asked {
			delay = c.backoff.Next(last.Finished)
		}
		c.r.update(func() {
			c.status.LastExit = &last
			if delay > 0 {
				c.status.State, c.status.Reason = Waiting, ReasonCrashLoop
				c.status.Message = "back-off " + delay.String() + " before the next start"
			}
		})
		if delay > 0 {
			c.wait(ctx, delay)
		}
	}
}

// ending reports whether the pod is about to stop, so that nothing is started.
func (c *container) ending(ctx context.Context) bool {
	select {
	case <-c.r.stopNow:
		return true
	case <-ctx.Done():
		return true
	default:
		return false
	}
}

// awaitStart waits until the program has started as its startup probe sees it; ok is
// false if the pod ends before.
func (c *container) awaitStart(ctx context.Context) (ok bool) {
	for {
		c.r.mu.Lock()
		started, changed := c.status.Started, c.r.changed
		c.r.mu.Unlock()
		if started {
			return true
		}
		select {
		case <-changed:
		case <-c.r.stopNow:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// wait sleeps through a back-off, which a restart or the pod's end cuts short.
func (c *container) wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.restart:
	case <-c.r.stopNow:
	case <-ctx.Done():
	}
}

// setTerminated records that the container is over; last is nil if its end came
// while it was not running.
func (c *container) setTerminated(ok bool, last *LastExit) {
	c.r.update(func() {
		c.status.State, c.status.Reason, c.status.Message = Terminated, ReasonTerminating, ""
		if last != nil {
			c.status.LastExit, c.status.Reason = last, last.Reason
		}
		// A finished init container stays ready, as in Kubernetes.
		c.status.Ready, c.status.Started, c.status.PID = ok && c.status.Init, false, 0
	})
}

// start starts the program and makes it known to process.
func (c *container) start(p Program) (Process, error) {
	starting := make(chan struct{})
	defer close(starting)
	c.r.mu.Lock()
	c.starting = starting
	c.r.mu.Unlock()
	proc, err := c.r.place.Start(p)
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.starting = nil
	if err != nil {
		return nil, err
	}
	// The rest of the status follows at once; a stop signal that comes before must
	// not take the program for one that does not run.
	c.proc, c.status.PID, c.status.State = proc, proc.PID(), Live
	return proc, nil
}

// once runs the program to its end; asked says that Restart caused it.
func (c *container) once(ctx context.Context, p Program) (last LastExit, asked bool) {
	start := time.Now()
	proc, err := c.start(p)
	if err != nil {
		code, reason := exitNotExecutable, ReasonStartError
		switch {
		case errors.Is(err, os.ErrNotExist):
			code = exitNotFound
		case !errors.Is(err, os.ErrPermission):
			reason = ReasonProxyError
		}
		if reason == ReasonStartError {
			c.r.update(c.countRun)
		}
		c.r.o.Log.WarnContext(ctx, "program did not start", "container", c.spec.Name, "error", err)
		return LastExit{Code: code, Reason: reason, Message: err.Error(), Started: start, Finished: time.Now()}, false
	}
	c.r.update(func() {
		c.countRun()
		c.status.State, c.status.Reason, c.status.Message = Live, "", ""
		c.status.PID, c.status.Since = proc.PID(), start
		c.status.Started = c.spec.Startup == nil
		c.status.Ready = c.status.Started && c.spec.Readiness == nil
	})
	probing, stopProbing := context.WithCancel(ctx)
	var probes sync.WaitGroup
	sick := make(chan error, 1)
	probes.Go(func() { c.probe(probing, start, sick) })

	cause := ""
	select {
	case <-proc.Done():
	case err := <-sick:
		cause = "ended since its probe failed: " + err.Error()
		c.r.o.Log.WarnContext(ctx, "program failed its probe and is restarted", "container", c.spec.Name, "error", err)
		c.terminate(ctx, proc)
	case <-c.restart:
		asked = true
		c.terminate(ctx, proc)
	case <-c.end:
		c.terminate(ctx, proc)
	case <-ctx.Done():
		c.terminate(ctx, proc)
	}
	stopProbing()
	probes.Wait()
	exit := proc.Wait()
	last = LastExit{Code: exit.Status(), Signal: int(exit.Signal), Reason: ReasonError, Message: cause, Started: start, Finished: time.Now()}
	if exit.Success() {
		last.Reason = ReasonCompleted
	}
	c.r.o.Log.InfoContext(ctx, "program ended", "container", c.spec.Name, "code", last.Code, "signal", last.Signal)
	c.r.update(func() {
		c.proc = nil
		c.status.PID, c.status.Started, c.status.Ready = 0, false, false
		c.status.CPUSeconds += exit.CPUTime.Seconds()
	})
	return last, asked
}

// countRun notes one more start. As in Kubernetes, a restart counts when it
// happens, not when the program has failed. r.mu is held.
func (c *container) countRun() {
	c.runs++
	c.status.Restarts = c.runs - 1
}

// terminate ends the program: SIGTERM, and SIGKILL after the grace period or at
// the end of ctx.
func (c *container) terminate(ctx context.Context, proc Process) {
	c.signal(ctx, proc, syscall.SIGTERM)
	grace := time.NewTimer(c.r.grace())
	defer grace.Stop()
	select {
	case <-proc.Done():
		return
	case <-grace.C:
	case <-ctx.Done():
	}
	c.r.o.Log.WarnContext(ctx, "program did not end in its grace period and is killed", "container", c.spec.Name, "grace", c.r.o.Bootstrap.Set.GracePeriod)
	c.signal(ctx, proc, syscall.SIGKILL)
	<-proc.Done()
}

func (c *container) signal(ctx context.Context, proc Process, sig syscall.Signal) {
	if err := proc.Signal(sig); err != nil {
		c.r.o.Log.WarnContext(ctx, "signal not delivered", "container", c.spec.Name, "signal", sig.String(), "error", err)
	}
}

// probe watches one program until ctx ends. sick gets the reason why the program
// has to be restarted; it has room for one.
func (c *container) probe(ctx context.Context, start time.Time, sick chan<- error) {
	exec := Program{Env: c.program.Env, Dir: c.program.Dir}
	watch := func(p *mesh.Probe, first verdict, changed func(verdict, error) bool) {
		q := withDefaults(p)
		q.Exec = expandAll(q.Exec, c.r.o.Bootstrap)
		w := watcher{
			probe: q, started: start, verdict: first, changed: changed, answered: c.answers(),
			ask: func(ctx context.Context) error { return ask(ctx, c.r.place, &q, exec) },
		}
		w.run(ctx)
	}
	restart := func(cause error) {
		select {
		case sick <- cause:
		default:
		}
	}
	if c.spec.Startup != nil {
		started := false
		watch(c.spec.Startup, undecided, func(v verdict, cause error) bool {
			if started = v == passing; !started {
				restart(cause)
			}
			return false
		})
		if !started {
			return
		}
		c.r.update(func() { c.status.Started, c.status.Ready = true, c.spec.Readiness == nil })
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	if c.spec.Liveness != nil {
		wg.Go(func() {
			watch(c.spec.Liveness, passing, func(_ verdict, cause error) bool {
				restart(cause)
				return false
			})
		})
	}
	if c.spec.Readiness != nil {
		wg.Go(func() {
			watch(c.spec.Readiness, failing, func(v verdict, _ error) bool {
				c.r.update(func() { c.status.Ready = v == passing })
				return true
			})
		})
	}
}

// answers tells what one probe is told: whatever holds the container up, before it
// has consequences too, until the probe succeeds.
func (c *container) answers() func(cause error) {
	told := ""
	return func(cause error) {
		now := ""
		if cause != nil {
			now = cause.Error()
		}
		c.r.mu.Lock()
		message := c.status.Message
		c.r.mu.Unlock()
		if now != message && (now != "" || message == told) {
			c.r.update(func() {
				if c.status.Message == message { // else another probe has failed meanwhile
					c.status.Message = now
				}
			})
		}
		told = now
	}
}
