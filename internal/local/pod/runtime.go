package pod

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// Bounds of how long requests in flight may hold up SIGTERM, half of the grace period
// being another: when others take over the pod's work, and when the whole mesh ends.
const (
	drainTimeout     = 15 * time.Second
	downDrainTimeout = 2 * time.Second
	// lateGrace is what a program has at least from SIGTERM to SIGKILL if the grace
	// period is no shorter, as kubelet gives it after a preStop hook that took too long.
	lateGrace = 2 * time.Second
)

// Hooks connect the programs' life with the proxy. Each may be nil.
type Hooks struct {
	// Ready is called with each change of the pod's readiness, in order, and
	// must neither block nor call the Runtime.
	Ready func(ready bool)
	// Drain is called once, after the pod stopped being an endpoint and before
	// its programs are told to end. It returns when no request is in flight or
	// ctx ends, and cuts off nothing: programs may still answer.
	Drain func(ctx context.Context)
}

// Options make a Runtime.
type Options struct {
	Bootstrap *Bootstrap // valid; not changed
	Env       []string   // of the pod's own process, the base of each program's
	Log       *slog.Logger
}

// Runtime keeps the programs of one pod running.
type Runtime struct {
	o       Options
	stopNow chan struct{} // closed by Stop
	once    sync.Once
	end     chan struct{} // closed when programs are to be ended
	last    chan struct{} // closed when Sidecars are to be ended, after the others

	// Set by Run before anything uses them.
	place Case
	hooks Hooks

	mu          sync.Mutex // guards the rest
	status      Status     // Containers is nil; they are in containers
	containers  []*container
	initialized bool
	handover    bool
	stopped     time.Time     // when Stop was called; zero before
	unhealthy   bool          // see FailHealth
	ready       bool          // last told to Hooks.Ready
	changed     chan struct{} // closed and replaced with each change
}

// New prepares the pod's containers; nothing runs before Run.
func New(o Options) *Runtime {
	b := o.Bootstrap
	r := &Runtime{
		o:       o,
		stopNow: make(chan struct{}),
		end:     make(chan struct{}),
		last:    make(chan struct{}),
		changed: make(chan struct{}),
		status: Status{
			Namespace: b.Workload.Namespace, Name: b.Workload.Name,
			PID:   os.Getpid(),
			Phase: Pending, Reason: ReasonCreating, Started: time.Now(),
		},
	}
	for i := range b.Set.InitContainers {
		r.containers = append(r.containers, newContainer(r, &b.Set.InitContainers[i], true))
	}
	for i := range b.Set.Containers {
		r.containers = append(r.containers, newContainer(r, &b.Set.Containers[i], false))
	}
	return r
}

// Run starts the containers in the case c and returns when all have ended for good: by
// themselves, after Stop, or, all killed at once, at the end of ctx. How it
// went is in Status.
func (r *Runtime) Run(ctx context.Context, c Case, h Hooks) {
	r.mu.Lock()
	r.place, r.hooks = c, h
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	var stopper sync.WaitGroup
	stopper.Go(func() { r.stopOnDemand(ctx) })
	defer stopper.Wait()
	defer cancel()

	ok := r.runContainers(ctx)
	r.update(func() {
		r.status.Phase, r.status.Reason = Failed, ""
		if ok {
			r.status.Phase = Succeeded
		}
	})
}

// runContainers runs the init containers one after the other, the Sidecars among
// them, and then all others at once. It returns when all have ended, the Sidecars
// last: whether all but these succeeded.
func (r *Runtime) runContainers(ctx context.Context) (ok bool) {
	restart := r.o.Bootstrap.Set.Restart
	initPolicy := restart
	if restart == mesh.RestartAlways {
		initPolicy = mesh.RestartOnFailure
	}
	inits := r.containers[:len(r.o.Bootstrap.Set.InitContainers)]
	rest := r.containers[len(inits):]
	var sidecars, programs sync.WaitGroup
	defer sidecars.Wait()
	defer close(r.last)
	for i := 0; ; i++ {
		for len(rest) > 0 && rest[0].spec.Sidecar != nil && rest[0].spec.Sidecar.AfterInit <= i {
			c := rest[0]
			rest = rest[1:]
			sidecars.Go(func() { c.keep(ctx, restart) })
			if !c.awaitStart(ctx) {
				return false
			}
		}
		if i == len(inits) {
			break
		}
		if !inits[i].keep(ctx, initPolicy) {
			return false
		}
	}
	r.update(func() {
		r.initialized = true
		r.status.Phase, r.status.Message = Running, ""
		if !r.status.Stopping {
			r.status.Reason = ""
		}
	})
	succeeded := make([]bool, len(rest))
	for i, c := range rest {
		programs.Go(func() { succeeded[i] = c.keep(ctx, restart) })
	}
	programs.Wait()
	return !slices.Contains(succeeded, false)
}

// stopOnDemand takes the pod out of service once Stop was called: not ready,
// endpoint gone everywhere, no request in flight or not for long, and then the end of
// the programs. The grace period counts from the beginning.
func (r *Runtime) stopOnDemand(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-r.stopNow:
	}
	defer close(r.end)
	r.mu.Lock()
	limit := downDrainTimeout
	if r.handover {
		limit = drainTimeout
	}
	limit = min(limit, r.o.Bootstrap.Set.GracePeriod/2)
	r.mu.Unlock()
	if r.hooks.Drain != nil {
		drain, cancel := context.WithTimeout(ctx, limit)
		r.hooks.Drain(drain)
		cancel()
	}
}

// grace is how long a program that is told to end now has until it is killed.
func (r *Runtime) grace() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	whole := r.o.Bootstrap.Set.GracePeriod
	if r.stopped.IsZero() {
		return whole
	}
	return max(whole-time.Since(r.stopped), min(whole, lateGrace))
}

// Stop asks all programs to end, gracefully: see Run. With handover others go on
// with the pod's work, so requests in flight have more time to be finished before
// programs are told; when the whole mesh ends they have less. No fixed time passes before the drain:
// the supervisor stops a pod only when all connected proxies know that it is no
// endpoint (local.Options.Unlisted), and Hooks.Drain waits until the pod's own
// proxy knows, which is what there is to go by if others stop the pod. Later calls
// change nothing.
func (r *Runtime) Stop(handover bool) {
	r.once.Do(func() {
		r.update(func() {
			r.handover, r.stopped = handover, time.Now()
			r.status.Stopping, r.status.Reason = true, ReasonTerminating
		})
		close(r.stopNow)
	})
}

// Signal sends a signal to the running program of a container, or of every
// container if the name is "". It returns the number of programs reached.
func (r *Runtime) Signal(name string, sig syscall.Signal) int {
	n := 0
	for _, c := range r.named(name) {
		if p := c.process(); p != nil && p.Signal(sig) == nil {
			n++
		}
	}
	return n
}

// AwaitStarts returns when no program is being started, so that Status tells the
// process of each that runs.
func (r *Runtime) AwaitStarts() {
	for _, c := range r.named("") {
		c.process()
	}
}

// Restart ends the program of a container (of all, if the name is "") with its
// grace period and starts it again at once, without back-off. It returns the
// number of containers it found.
func (r *Runtime) Restart(name string) int {
	cs := r.named(name)
	for _, c := range cs {
		select {
		case c.restart <- struct{}{}:
		default: // one is pending already
		}
	}
	return len(cs)
}

func (r *Runtime) named(name string) []*container {
	var out []*container
	for _, c := range r.containers {
		if !c.status.Init && (name == "" || c.spec.Name == name) {
			out = append(out, c)
		}
	}
	return out
}

// Status is the present state, owned by the caller, and a channel that is
// closed at the next change.
func (r *Runtime) Status() (Status, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.snapshot(), r.changed
}

func (r *Runtime) snapshot() Status {
	s := r.status
	s.Ready = r.ready
	for _, c := range r.containers {
		cs := c.status
		if cs.LastExit != nil {
			last := *cs.LastExit
			cs.LastExit = &last
		}
		s.Containers = append(s.Containers, cs)
		if cs.Reason == ReasonCrashLoop && s.Reason == "" {
			s.Reason, s.Message = ReasonCrashLoop, cs.Message
		}
	}
	return s
}

// FailHealth takes the pod out of service although its programs are ready
// (true), or leaves it to them again (false).
func (r *Runtime) FailHealth(fail bool) {
	r.update(func() { r.unhealthy = fail })
}

// Fail records why the pod cannot run at all, before or instead of Run.
func (r *Runtime) Fail(reason, message string) {
	r.update(func() { r.status.Phase, r.status.Reason, r.status.Message = Failed, reason, message })
}

// Stopping is closed when Stop was called.
func (r *Runtime) Stopping() <-chan struct{} { return r.stopNow }

// Waiting says what the pod waits for before Run.
func (r *Runtime) Waiting(message string) {
	r.update(func() { r.status.Message = message })
}

// update changes guarded state and tells everyone who watches.
func (r *Runtime) update(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	ready := r.initialized && !r.unhealthy && !r.status.Stopping && !r.status.Phase.Ended()
	for _, c := range r.containers {
		ready = ready && (c.status.Init || c.status.Ready)
	}
	if ready != r.ready {
		r.ready = ready
		if r.hooks.Ready != nil {
			r.hooks.Ready(ready)
		}
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
