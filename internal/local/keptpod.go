package local

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// keptPod is one pod of the supervisor.
type keptPod struct {
	boot    *pod.Bootstrap // read-only, as the pod was made: runs goes on counting
	key     string
	ordinal int
	created time.Time
	adopted bool // found running; its output so far was shown already

	stopping  chan struct{} // closed by stop
	kill      chan struct{} // closed by killNow
	dismissed chan struct{} // closed by stop once record is set
	once      struct{ stop, kill, dismiss sync.Once }

	abandoned atomic.Bool // by giveUp
	record    atomic.Bool // undone, and it has ended: listed until it is stopped again

	// Guarded by Supervisor.mu once the pod is in its map.
	handover bool // see pod.Runtime.Stop
	status   pod.Status
	pid      int                      // of the running process; 0 for none
	crashes  int                      // of the process
	runs     map[string]int           // see pod.Bootstrap.Runs; replaced, never changed
	exits    map[string]*pod.LastExit // by container, when giveUp was called
	ended    bool
	finished time.Time
}

func newKeptPod(b *pod.Bootstrap, ordinal int) *keptPod {
	return &keptPod{
		boot: b, key: b.Workload.Key(), ordinal: ordinal, created: b.Created, runs: b.Runs,
		stopping: make(chan struct{}), kill: make(chan struct{}), dismissed: make(chan struct{}),
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

// stop ends the pod, or its record.
func (p *keptPod) stop(handover bool) {
	if p.record.Load() {
		p.once.dismiss.Do(func() { close(p.dismissed) })
		return
	}
	p.once.stop.Do(func() { p.handover = handover; close(p.stopping) })
}

// giveUp ends the pod of a Job that has failed, and leaves its record: with how its
// programs ended before, since how they end now is of our doing. Supervisor.mu is held.
func (p *keptPod) giveUp() {
	if !p.abandoned.Swap(true) {
		p.exits = map[string]*pod.LastExit{}
		for i := range p.status.Containers {
			p.exits[p.status.Containers[i].Name] = p.status.Containers[i].LastExit
		}
	}
	p.stop(true)
}

// unwanted is closed when the pod, or its record, is to end.
func (p *keptPod) unwanted() <-chan struct{} {
	if p.record.Load() {
		return p.dismissed
	}
	return p.stopping
}

func (p *keptPod) killNow() {
	p.stop(false)
	p.once.kill.Do(func() { close(p.kill) })
}

func (p *keptPod) isStopping() bool {
	select {
	case <-p.unwanted():
		return true
	default:
		return false
	}
}

func (p *keptPod) ready() bool { return p.status.Ready && p.pid != 0 && !p.isStopping() }

func (p *keptPod) setEnded(final *pod.Status) {
	p.status, p.ended, p.finished = *final, true, final.Started
	p.status.Ready = false
	for _, c := range final.Containers {
		if c.LastExit != nil && c.LastExit.Finished.After(p.finished) {
			p.finished = c.LastExit.Finished
		}
	}
}

// setAbandoned keeps what is known of a pod that giveUp has ended as that of one
// that failed.
func (p *keptPod) setAbandoned(last *pod.Status) {
	p.setUndone(last, pod.ReasonBackoffLimit, "the Job has failed: with failed pods and restarts of programs it has reached its backoffLimit ("+
		strconv.Itoa(p.boot.Set.BackoffLimit)+")")
	p.keepExits()
}

// keepExits tells of a pod that was given up how its programs ended before that.
func (p *keptPod) keepExits() {
	if len(p.exits) == 0 {
		return
	}
	p.status.Containers = slices.Clone(p.status.Containers)
	for i := range p.status.Containers {
		if c := &p.status.Containers[i]; p.exits[c.Name] != nil {
			c.LastExit = p.exits[c.Name]
		}
	}
}

// setInterrupted keeps what is known of a Job's pod that somebody else has ended.
func (p *keptPod) setInterrupted(last *pod.Status) {
	p.setUndone(last, pod.ReasonError, "it was made to end before it was done")
}

// setUndone keeps what is known of a Job's pod that was made to end before it was
// done as that of one that failed.
func (p *keptPod) setUndone(last *pod.Status, reason, message string) {
	st := *last
	st.Phase, st.Reason, st.Message, st.Stopping = pod.Failed, reason, message, false
	st.Containers = slices.Clone(st.Containers)
	for i := range st.Containers {
		c := &st.Containers[i]
		if c.Init && c.Ready {
			continue
		}
		c.State, c.Reason, c.PID, c.Ready = pod.Terminated, pod.ReasonError, 0, false
	}
	p.setEnded(&st)
	p.record.Store(true)
}

func (p *keptPod) replica() replica {
	return replica{
		key: p.key, hash: p.boot.Template, ordinal: p.ordinal, created: p.created, finished: p.finished,
		ready: p.ready(), stopping: p.isStopping(),
		ended: p.ended, succeeded: p.ended && p.status.Phase == pod.Succeeded,
		steady:   p.steady(time.Now()),
		restarts: p.restarts(),
	}
}

// restarts is how often programs of the pod were started again, also by a process
// that took the place of a dead one.
func (p *keptPod) restarts() int {
	if len(p.status.Containers) > 0 {
		return p.status.Restarts()
	}
	n := 0
	for _, runs := range p.runs {
		n += max(0, runs-1)
	}
	return n
}

// countRuns brings runs up to date with the last status of a process.
func (p *keptPod) countRuns() {
	runs := maps.Clone(p.runs)
	if runs == nil {
		runs = map[string]int{}
	}
	for i := range p.status.Containers {
		c := &p.status.Containers[i]
		if !c.Init && (!c.Since.IsZero() || c.LastExit != nil && c.LastExit.Reason == pod.ReasonStartError) {
			runs[c.Name] = c.Restarts + 1
		}
	}
	p.runs = runs
}

// How long a program must have run until its pod is steady. One that was started
// again has failed before and is trusted only when it has lasted longer than the
// first back-off of a program that keeps failing: such a one is always found
// waiting within that time. One that has not failed yet, but has no probe which
// asks whether it is ready either, gets the moment in which a missing file, a
// port in use or a bad setting ends programs.
const (
	steadyAfterRestart   = 10 * time.Second
	steadyWithoutProbing = time.Second
)

// steady reports whether what is ready seems to stay so.
func (p *keptPod) steady(now time.Time) bool {
	probed := map[string]bool{}
	for i := range p.boot.Set.Containers {
		c := &p.boot.Set.Containers[i]
		probed[c.Name] = c.Readiness != nil
	}
	for i := range p.status.Containers {
		c := &p.status.Containers[i]
		need := time.Duration(0)
		switch {
		case c.Init:
		case c.Restarts > 0:
			need = steadyAfterRestart
		case !probed[c.Name]:
			need = steadyWithoutProbing
		}
		// Negative is a clock that was set back: nothing is known then.
		if ran := now.Sub(c.Since); ran >= 0 && ran < need {
			return false
		}
	}
	return true
}
