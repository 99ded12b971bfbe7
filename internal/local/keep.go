package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	stopSlack = 10 * time.Second
	// claimTime is how long a program that was prepared may take to appear.
	claimTime = 30 * time.Second
	// defaultUnlistedTime is of Options. Proxies need milliseconds, or seconds while
	// everything changes.
	defaultUnlistedTime = 3 * time.Second
	// strayGrace is what a running pod has to end in whose description is lost.
	strayGrace = 10 * time.Second
)

// keep looks after one pod until it is gone or ctx ends: starts its process,
// follows its state, starts it again when it dies.
func (s *Supervisor) keep(ctx context.Context, p *keptPod) {
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
		if delay > 0 && !s.pause(ctx, p, delay) && ctx.Err() != nil {
			return
		}
	}
	if p.ended && !p.isStopping() { // its record stays until it is not wanted
		select {
		case <-ctx.Done():
			return
		case <-p.unwanted():
		}
	}
	s.remove(ctx, p)
}

// process finds or starts the pod's process. It returns nil with an error if
// there is none, and nil without one if the pod was stopped before it had any, or
// if the one that was found running has ended since.
func (s *Supervisor) process(ctx context.Context, p *keptPod) (*process, error) {
	proc, err := attach(p.boot.RunDir)
	if proc != nil || err != nil {
		return proc, err
	}
	s.mu.Lock()
	ran := p.pid != 0
	s.mu.Unlock()
	if ran || p.isStopping() {
		return nil, nil
	}
	if !p.boot.Foreground {
		boot := *p.boot
		s.mu.Lock()
		boot.Runs = p.runs
		again := p.crashes > 0
		s.mu.Unlock()
		if again {
			if _, err := boot.Write(); err != nil {
				return nil, err
			}
		}
		return spawn(s.o.ProxyBinary, &boot)
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
func (s *Supervisor) pause(ctx context.Context, p *keptPod, d time.Duration) bool {
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
func (s *Supervisor) attend(ctx context.Context, p *keptPod, proc *process) error {
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
func (s *Supervisor) observe(ctx context.Context, p *keptPod, client *pod.Client) {
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
			p.keepExits()
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
func (s *Supervisor) stopOnDemand(ctx context.Context, p *keptPod, proc *process, client *pod.Client) {
	select {
	case <-ctx.Done():
		return
	case <-p.stopping:
	}
	s.mu.Lock()
	handover := p.handover
	s.changed(p) // not ready from now on
	s.wake()
	s.mu.Unlock()
	if handover && s.o.Unlisted != nil {
		s.awaitUnlisted(ctx, p)
	}
	ask, cancel := context.WithTimeout(ctx, time.Second)
	err := client.Stop(ask, handover)
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
func (s *Supervisor) awaitUnlisted(ctx context.Context, p *keptPod) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(s.o.UnlistedTime, defaultUnlistedTime))
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

func (s *Supervisor) log(ctx context.Context, p *keptPod, what string, err error) {
	if err != nil {
		s.o.Log.WarnContext(ctx, "signal not delivered", "pod", p.key, "purpose", what, "error", err)
	}
}

// after decides what follows the end of a pod's process: another one after a
// delay, or none.
func (s *Supervisor) after(ctx context.Context, p *keptPod, backoff *pod.Backoff, err error) (delay time.Duration, more bool) {
	final, told := pod.ReadFinal(p.boot.RunDir)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wake()
	was := p.status.Ready && p.pid != 0
	lastPID := p.pid
	p.pid = 0
	p.status.Ready = false
	defer func() {
		if was || p.ended {
			s.changed(p)
		}
	}()
	told = told && final.PID == lastPID // or it is of an earlier process
	last := &p.status
	if told {
		last = &final
	}
	if p.abandoned.Load() {
		p.setAbandoned(last)
		s.saveEnd(ctx, p)
		return 0, false
	}
	if p.boot.Foreground || p.isStopping() {
		return 0, false
	}
	if told && final.Phase.Ended() && !final.Stopping && final.Reason != pod.ReasonProxyError {
		p.setEnded(&final)
		return 0, false
	}
	message := causeOfEnd(p, &final, told, err)
	if p.boot.Set.Restart == mesh.RestartNever {
		if told && final.Stopping {
			p.setInterrupted(last)
		} else {
			p.setUndone(last, pod.ReasonProxyError, message)
		}
		p.finished = time.Now()
		s.saveEnd(ctx, p)
		return 0, false
	}
	delay = backoff.Next(time.Now())
	p.crashes++
	p.status.Containers = last.Containers
	p.countRuns()
	p.status.Reason, p.status.Message, p.status.Containers = "", message, nil
	p.status.Phase = pod.Pending
	if delay > 0 {
		p.status.Reason = pod.ReasonCrashLoop
		p.status.Message = fmt.Sprintf("back-off %s before the next start: %s", delay, message)
	}
	s.o.Log.WarnContext(ctx, "pod's proxy ended and is started again", "pod", p.key, "delay", delay, "cause", message)
	return delay, true
}

// causeOfEnd says, in one line, why a pod that was to run has no process any more:
// err, if that tells, or else what its last process left behind, if it told.
func causeOfEnd(p *keptPod, final *pod.Status, told bool, err error) string {
	switch {
	case told && final.Reason == pod.ReasonProxyError:
		return final.Message
	case err != nil:
		return strings.ReplaceAll(err.Error(), "\n", "; ")
	case told && final.Stopping:
		return "its proxy was told to end: by a signal, or by /quitquitquit of its admin"
	}
	return fmt.Sprintf("its proxy ended without a word: see `vitrine logs -c %s %s`", pod.ProxyContainer, p.boot.Workload.Name)
}

// saveEnd tells the next supervisor how a pod of a Job has ended whose own process
// did not say so, or not that. s.mu is held.
func (s *Supervisor) saveEnd(ctx context.Context, p *keptPod) {
	if err := pod.WriteFinal(p.boot.RunDir, &p.status); err != nil {
		s.o.Log.WarnContext(ctx, "after a crash of the control plane the Job will run again", "pod", p.key, "error", err)
	}
}
