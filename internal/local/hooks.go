package local

import "github.com/vitrine-mesh/vitrine/internal/mesh"

// Hooks tell what happens to workloads. Each may be nil. They are called one at
// a time and must not call the Supervisor.
type Hooks struct {
	// WorkloadChanged is called with a new workload before its process starts,
	// and with each change of its readiness. The value is the callee's.
	WorkloadChanged func(w mesh.Workload)
	// WorkloadGone is called when the workload with the given Key has ended and
	// will not come back under this name: also of a Job that is done, which is
	// listed all the same, and of one that an earlier supervisor left and that does
	// not run any more, of which WorkloadChanged said nothing.
	WorkloadGone func(key string)
}

// changed queues WorkloadChanged, or WorkloadGone once the pod has ended.
// s.mu is held.
func (s *Supervisor) changed(p *keptPod) {
	if p.ended {
		s.gone(p.key)
		return
	}
	if f := s.o.Hooks.WorkloadChanged; f != nil {
		w := p.boot.Workload.Clone()
		w.Ready = p.ready()
		s.pending = append(s.pending, func() { f(w) })
	}
}

// gone queues WorkloadGone. s.mu is held.
func (s *Supervisor) gone(key string) {
	if f := s.o.Hooks.WorkloadGone; f != nil {
		s.pending = append(s.pending, func() { f(key) })
	}
}

// runHooks makes the queued hook calls.
func (s *Supervisor) runHooks() {
	s.hooksMu.Lock()
	defer s.hooksMu.Unlock()
	for {
		s.mu.Lock()
		calls := s.pending
		s.pending = nil
		s.mu.Unlock()
		if len(calls) == 0 {
			return
		}
		for _, call := range calls {
			call()
		}
	}
}
