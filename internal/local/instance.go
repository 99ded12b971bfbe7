package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// Times of ending a pod beyond its own grace period.
const (
	// stopSlack is for the pod's own steps around the grace period: leaving
	// the mesh, draining, last metrics.
	stopSlack = pod.EndpointPropagation + pod.DrainTimeout + 5*time.Second
	// claimTime is how long a program that was prepared may take to appear.
	claimTime = 30 * time.Second
	// unlistedWait is how long a pod that is to stop is kept for proxies to learn
	// of it. They need milliseconds, or seconds while everything changes.
	unlistedWait = 3 * time.Second
	// strayGrace is what a running pod has to end in whose description is lost.
	strayGrace = 10 * time.Second
)

// instance is one pod of the supervisor.
type instance struct {
	boot    *pod.Bootstrap // read-only
	key     string
	ordinal int
	created time.Time
	adopted bool // found running; its output so far was shown already

	stopping chan struct{} // closed by stop
	kill     chan struct{} // closed by killNow
	once     struct{ stop, kill sync.Once }

	// Guarded by Supervisor.mu once the pod is in its map.
	propagate bool // see pod.Runtime.Stop
	status    pod.Status
	pid       int // of the running process; 0 for none
	crashes   int // of the process
	restarts  int // of programs, in processes before this one
	ended     bool
	finished  time.Time
}

func newInstance(b *pod.Bootstrap, ordinal int) *instance {
	return &instance{
		boot: b, key: b.Workload.Key(), ordinal: ordinal, created: time.Now(),
		stopping: make(chan struct{}), kill: make(chan struct{}),
		status: pod.Status{
			Namespace: b.Workload.Namespace, Name: b.Workload.Name,
			Phase: pod.Pending, Reason: pod.ReasonCreating, Started: time.Now(),
		},
	}
}

// ordinalOf is the number of a StatefulSet's pod.
func ordinalOf(b *pod.Bootstrap) int {
	if b.Set.Kind != mesh.KindStatefulSet {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimPrefix(b.Workload.Name, b.Set.Name+"-"))
	if err != nil {
		return 0
	}
	return n
}

func (p *instance) stop(propagate bool) {
	p.once.stop.Do(func() { p.propagate = propagate; close(p.stopping) })
}

func (p *instance) killNow() {
	p.stop(false)
	p.once.kill.Do(func() { close(p.kill) })
}

func (p *instance) isStopping() bool {
	select {
	case <-p.stopping:
		return true
	default:
		return false
	}
}

func (p *instance) ready() bool { return p.status.Ready && p.pid != 0 && !p.isStopping() }

func (p *instance) setEnded(final *pod.Status) {
	p.status, p.ended, p.finished = *final, true, final.Started
	p.status.Ready = false
	for _, c := range final.Containers {
		if c.LastExit != nil && c.LastExit.Finished.After(p.finished) {
			p.finished = c.LastExit.Finished
		}
	}
}

func (p *instance) replica() replica {
	return replica{
		key: p.key, hash: p.boot.Template, ordinal: p.ordinal, created: p.created, finished: p.finished,
		ready: p.ready(), stopping: p.isStopping(),
		ended: p.ended, succeeded: p.ended && p.status.Phase == pod.Succeeded,
		restarts: p.restarts + p.status.Restarts(),
	}
}

// keep looks after one pod until it is gone or ctx ends: starts its process,
// follows its state, starts it again when it dies.
func (s *Supervisor) keep(ctx context.Context, p *instance) {
	var backoff pod.Backoff
	for !p.ended {
		proc, err := s.process(ctx, p)
		if ctx.Err() != nil {
			if proc != nil {
				proc.close()
			}
			return
		}
		if proc != nil {
			err = s.attend(ctx, p, proc)
			proc.close()
			if ctx.Err() != nil {
				return
			}
		}
		delay, more := s.after(ctx, p, &backoff, err)
		if !more {
			break
		}
		if delay > 0 && !s.pause(ctx, p, delay) {
			if ctx.Err() != nil {
				return
			}
			break
		}
	}
	if p.ended && !p.isStopping() { // its record stays until it is not wanted
		select {
		case <-ctx.Done():
			return
		case <-p.stopping:
		}
	}
	s.remove(ctx, p)
}

// process finds or starts the pod's process. It returns nil with an error if
// there is none, and nil without one if the pod was stopped before it had any.
func (s *Supervisor) process(ctx context.Context, p *instance) (*process, error) {
	proc, err := attach(p.boot.RunDir)
	if proc != nil || err != nil {
		return proc, err
	}
	if p.isStopping() {
		return nil, nil
	}
	if !p.boot.Foreground {
		return spawn(s.o.ProxyBinary, p.boot)
	}
	// The command line becomes the pod's process.
	deadline := time.Now().Add(claimTime)
	for time.Now().Before(deadline) {
		if !s.pause(ctx, p, 20*time.Millisecond) {
			return nil, nil
		}
		_, ended := pod.ReadFinal(p.boot.RunDir)
		if proc, err := attach(p.boot.RunDir); proc != nil || err != nil {
			return proc, err
		}
		if ended { // it came and went between two looks
			return nil, nil
		}
	}
	return nil, errors.New("the program did not appear")
}

// pause waits; it returns false if ctx ended or the pod is to stop.
func (s *Supervisor) pause(ctx context.Context, p *instance, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.stopping:
	case <-ctx.Done():
	}
	return false
}

// attend follows a process to its end, ending it when the pod is to stop.
func (s *Supervisor) attend(ctx context.Context, p *instance, proc *process) error {
	s.mu.Lock()
	p.pid = proc.pid
	s.mu.Unlock()

	live, over := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer over()
	client := pod.NewClient(p.boot.RunDir)
	defer client.Close()
	wg.Go(func() { s.observe(live, p, client) })
	wg.Go(func() { s.stopOnDemand(live, p, proc, client) })
	return proc.wait(ctx)
}

// observe keeps the pod's status up to date while ctx lasts.
func (s *Supervisor) observe(ctx context.Context, p *instance, client *pod.Client) {
	delay := 5 * time.Millisecond
	for ctx.Err() == nil {
		// The error of a broken watch says nothing that the process's end does
		// not say better.
		_ = client.Watch(ctx, func(st *pod.Status) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if ctx.Err() != nil || st.PID != p.pid {
				return
			}
			delay = 5 * time.Millisecond
			was := p.ready()
			p.status = *st
			if p.ready() != was {
				s.changed(p)
			}
			s.wake()
		})
		t := time.NewTimer(delay)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
		delay = min(2*delay, 250*time.Millisecond)
	}
}

// stopOnDemand ends the process when the pod is to stop: politely, and with
// SIGKILL if it takes longer than it may.
func (s *Supervisor) stopOnDemand(ctx context.Context, p *instance, proc *process, client *pod.Client) {
	select {
	case <-ctx.Done():
		return
	case <-p.stopping:
	}
	s.mu.Lock()
	propagate := p.propagate
	s.changed(p) // not ready from now on
	s.wake()
	s.mu.Unlock()
	if propagate && s.o.Unlisted != nil {
		s.awaitUnlisted(ctx, p)
	}
	ask, cancel := context.WithTimeout(ctx, time.Second)
	err := client.Stop(ask, propagate)
	cancel()
	if err != nil && ctx.Err() == nil {
		// Before its socket is open, or hung.
		s.log(ctx, p, "pod is signalled", proc.signal(syscall.SIGTERM))
	}
	t := time.NewTimer(p.boot.Set.GracePeriod + stopSlack)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return
	case <-p.kill:
	case <-t.C:
		s.o.Log.WarnContext(ctx, "pod did not end in time and is killed", "pod", p.key)
	}
	s.log(ctx, p, "pod is killed", proc.signal(syscall.SIGKILL))
}

// awaitUnlisted waits until nobody sends the pod new work, within bounds: a proxy
// that hangs must not keep it.
func (s *Supervisor) awaitUnlisted(ctx context.Context, p *instance) {
	ctx, cancel := context.WithTimeout(ctx, unlistedWait)
	var killed sync.WaitGroup
	killed.Go(func() {
		select {
		case <-p.kill:
			cancel()
		case <-ctx.Done():
		}
	})
	defer killed.Wait()
	defer cancel()
	if err := s.o.Unlisted(ctx, p.key); err != nil {
		s.o.Log.WarnContext(ctx, "pod is stopped although not every proxy knows", "pod", p.key, "error", err)
	}
}

func (s *Supervisor) log(ctx context.Context, p *instance, what string, err error) {
	if err != nil {
		s.o.Log.WarnContext(ctx, "signal not delivered", "pod", p.key, "purpose", what, "error", err)
	}
}

// after decides what follows the end of a pod's process: another one after a
// delay, or none.
func (s *Supervisor) after(ctx context.Context, p *instance, backoff *pod.Backoff, err error) (delay time.Duration, more bool) {
	final, told := pod.ReadFinal(p.boot.RunDir)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wake()
	was := p.status.Ready && p.pid != 0
	last := p.pid
	p.pid = 0
	p.status.Ready = false
	defer func() {
		if was {
			s.changed(p)
		}
	}()
	if p.boot.Foreground || p.isStopping() {
		return 0, false
	}
	proxyFailed := told && final.Reason == pod.ReasonProxyError
	if told && final.PID == last && final.Phase.Ended() && !final.Stopping && !proxyFailed {
		p.setEnded(&final)
		return 0, false
	}
	message := "its proxy ended without a word"
	switch {
	case proxyFailed:
		message = final.Message
	case err != nil:
		message = err.Error()
	}
	if p.boot.Set.Restart == mesh.RestartNever {
		st := p.status
		st.Phase, st.Reason, st.Message = pod.Failed, pod.ReasonProxyError, message
		p.setEnded(&st)
		p.finished = time.Now()
		return 0, false
	}
	delay = backoff.Next(time.Now())
	p.crashes++
	p.restarts += p.status.Restarts() + len(p.boot.Set.Containers)
	p.status.Reason, p.status.Message, p.status.Containers = "", message, nil
	p.status.Phase = pod.Pending
	if delay > 0 {
		p.status.Reason = pod.ReasonCrashLoop
		p.status.Message = fmt.Sprintf("back-off %s before the next start: %s", delay, message)
	}
	s.o.Log.WarnContext(ctx, "pod's proxy ended and is started again", "pod", p.key, "delay", delay, "cause", message)
	return delay, true
}

// keptLogs is how many ended pods' logs stay on disk.
const keptLogs = 100

// pruneLogs deletes the oldest logs of pods that are gone.
func (s *Supervisor) pruneLogs(ctx context.Context) {
	dirs, err := filepath.Glob(filepath.Join(s.o.DataDir, "logs", "*", "*"))
	if err != nil || len(dirs) <= keptLogs {
		return
	}
	type dead struct {
		path string
		end  time.Time
	}
	var list []dead
	s.mu.Lock()
	for _, d := range dirs {
		key := filepath.Base(filepath.Dir(d)) + "/" + filepath.Base(d)
		if st, err := os.Stat(d); err == nil && s.pods[key] == nil {
			list = append(list, dead{d, st.ModTime()})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b dead) int { return b.end.Compare(a.end) })
	for _, d := range list[min(keptLogs, len(list)):] {
		if err := os.RemoveAll(d.path); err != nil {
			s.o.Log.WarnContext(ctx, "old logs not removed", "dir", d.path, "error", err)
		}
	}
}

// remove forgets a pod that has ended and clears its run directory.
func (s *Supervisor) remove(ctx context.Context, p *instance) {
	s.pruneLogs(ctx)
	if err := os.RemoveAll(p.boot.RunDir); err != nil {
		s.o.Log.WarnContext(ctx, "run directory not removed", "pod", p.key, "error", err)
	}
	if p.boot.Set.Kind != mesh.KindStatefulSet { // its name will come again
		if err := os.RemoveAll(p.boot.StateDir); err != nil {
			s.o.Log.WarnContext(ctx, "state directory not removed", "pod", p.key, "error", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pods, p.key)
	if f := s.o.Hooks.WorkloadGone; f != nil {
		s.pending = append(s.pending, func() { f(p.key) })
	}
	s.pending = append(s.pending, func() {
		// Index is called with the lock held, too: the number of a name that
		// came again meanwhile is not given away.
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.pods[p.key] == nil {
			s.o.Release(p.key)
		}
	})
	s.wake()
}

// PodStatus is what the supervisor knows of one pod.
type PodStatus struct {
	Workload mesh.Workload // Ready is up to date
	Status   pod.Status    // as told by the pod; its Containers are empty before that
	ProxyPID int           // of its vitrine-proxy; 0 while there is none
	Restarts int           // of its programs, those caused by the death of a proxy included
	Crashes  int           // deaths of its proxy
	Stopping bool
	Created  time.Time
	Template string // hash of the form it was made from
}

// Pods lists all pods, sorted by namespace and name.
func (s *Supervisor) Pods() []PodStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]PodStatus, 0, len(s.pods))
	for _, p := range s.pods {
		w := p.boot.Workload.Clone()
		w.Ready = p.ready()
		st := p.status
		st.Containers = slices.Clone(st.Containers)
		st.Ready = w.Ready
		out = append(out, PodStatus{
			Workload: w, Status: st, ProxyPID: p.pid,
			Restarts: p.restarts + p.status.Restarts(), Crashes: p.crashes,
			Stopping: p.isStopping(), Created: p.created, Template: p.boot.Template,
		})
	}
	slices.SortFunc(out, func(a, b PodStatus) int { return strings.Compare(a.Workload.Key(), b.Workload.Key()) })
	return out
}

// Prepare makes the pod of a program that the caller is about to run in the
// foreground (kind Program, one container), announces it, and returns its
// workload and the bootstrap file for `vitrine-proxy sidecar`. If no process
// takes the file up within 30 s, the pod is gone again.
func (s *Supervisor) Prepare(set mesh.WorkloadSet) (w mesh.Workload, bootstrap string, err error) {
	set.Kind, set.Replicas, set.Restart = mesh.KindProgram, 1, mesh.RestartNever
	s.mu.Lock()
	if s.down {
		s.mu.Unlock()
		return w, "", errors.New("the mesh is going down")
	}
	p, err := s.create(&set, templateHash(&set, ""), "", 0)
	s.wake()
	s.mu.Unlock()
	if err != nil {
		return w, "", err
	}
	s.runHooks()
	return p.boot.Workload.Clone(), filepath.Join(p.boot.RunDir, pod.BootstrapFile), nil
}

// Restart replaces the pods of the sets that the targets name (a pod's name or
// its owner's, with or without "NAMESPACE/"), the way kubectl rollout restart
// does: one after the other, without a gap in service. Programs of `vitrine run`
// are started again in place. It returns the keys of the affected pods; the
// replacement goes on after it returned.
func (s *Supervisor) Restart(ctx context.Context, targets []string) ([]string, error) {
	s.mu.Lock()
	var keys []string
	var inPlace []*instance
	sets := map[setKey]bool{}
	var missing []error
	for _, t := range targets {
		found := false
		for _, p := range s.pods {
			if !matches(t, &p.boot.Workload) || p.isStopping() {
				continue
			}
			found = true
			if p.boot.Foreground {
				inPlace = append(inPlace, p)
				keys = append(keys, p.key)
			} else {
				sets[keyOf(&p.boot.Set)] = true
			}
		}
		if !found {
			missing = append(missing, fmt.Errorf("nothing is called %q: see `vitrine ps`", t))
		}
	}
	if err := errors.Join(missing...); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	for k := range sets {
		if w := s.sets[k]; w != nil {
			w.restartedAt = time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z")
			w.hash = templateHash(&w.set, w.restartedAt)
		}
		for _, p := range s.pods {
			if keyOf(&p.boot.Set) == k && !p.isStopping() {
				keys = append(keys, p.key)
			}
		}
	}
	s.wake()
	s.mu.Unlock()
	slices.Sort(keys)
	var errs []error
	for _, p := range inPlace {
		client := pod.NewClient(p.boot.RunDir)
		errs = append(errs, client.Restart(ctx, ""))
		client.Close()
	}
	return slices.Compact(keys), errors.Join(errs...)
}
