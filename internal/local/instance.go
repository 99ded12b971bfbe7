package local

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
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
