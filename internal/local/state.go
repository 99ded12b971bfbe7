package local

import (
	"slices"
	"time"
)

// State is what a Supervisor keeps at one moment. It is the caller's.
type State struct {
	Pods []PodStatus // sorted by namespace and name
	// Settled tells that everything that was applied is as it should be: every wanted
	// pod is ready and seems to stay so, or has ended for good, and no other one is in
	// service.
	Settled bool
	// FailedJobs are given up: their backoffLimit is used up.
	FailedJobs []SetName
	// CreateErrors tell why pods that are wanted cannot be made at present: the error
	// of the last try of each set of which this is so. A set whose pods could be made
	// is not in it, whatever became of them: that is in Pods.
	CreateErrors map[SetName]error
}

// State is the present state.
func (s *Supervisor) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	bySet, unwanted := s.census()
	st := State{
		Pods:         s.podStatuses(),
		Settled:      s.applied && !slices.ContainsFunc(unwanted, func(p *keptPod) bool { return !p.isStopping() }),
		CreateErrors: map[SetName]error{},
	}
	now := time.Now()
	for name, w := range s.sets {
		d := plan(&w.set, w.hash, bySet[name], now)
		st.Settled = st.Settled && d.settled
		if d.failed {
			st.FailedJobs = append(st.FailedJobs, name)
		}
		if w.trouble.err != nil {
			st.CreateErrors[name] = w.trouble.err
		}
	}
	return st
}
