package local

import (
	"cmp"
	"slices"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// Back-off between the pods of a failing Job (Kubernetes: 10 s doubling to six
// minutes).
const (
	jobBackoffInitial = 10 * time.Second
	jobBackoffMax     = 6 * time.Minute
)

// replica is what planning needs to know of one pod of a set.
type replica struct {
	key       string
	hash      string // template it was made from
	ordinal   int    // StatefulSet only
	ready     bool
	steady    bool // meaningful if ready: seems to stay so
	stopping  bool
	ended     bool // for good
	succeeded bool // meaningful if ended
	restarts  int
	created   time.Time
	finished  time.Time // meaningful if ended
}

// decision is the next step towards the wanted state of one set. It is
// recomputed after each event, so a step need not lead all the way.
type decision struct {
	start   []int         // ordinals of pods to start; 0 where the kind has none
	stop    []string      // keys
	giveUp  []string      // keys of pods to end because their Job has failed; a record of them stays
	settled bool          // nothing to do, and every pod is ready and steady, or has ended for good
	failed  bool          // a Job that is given up
	again   time.Duration // ask again after this time; 0 is only after an event
}

// plan decides the next step for a set whose present template has the given
// hash. It is a pure function.
func plan(set *mesh.WorkloadSet, hash string, pods []replica, now time.Time) decision {
	switch set.Kind {
	case mesh.KindStatefulSet:
		return planStateful(set, hash, pods)
	case mesh.KindJob:
		return planJob(set, hash, pods, now)
	case mesh.KindDeployment, mesh.KindProgram:
	}
	return planDeployment(set, hash, pods)
}

// planDeployment rolls with at most one pod too many and none too few ready
// (maxSurge 1, maxUnavailable 0; Kubernetes' defaults of 25 % come to the same
// for up to three replicas). With Recreate all that is old ends before anything new
// starts.
func planDeployment(set *mesh.WorkloadSet, hash string, pods []replica) decision {
	var d decision
	var current, old []replica
	ready, steady, oldEnding := 0, true, false
	for _, p := range pods {
		switch {
		case p.stopping:
			oldEnding = oldEnding || p.hash != hash
			continue
		case p.ended:
			d.stop = append(d.stop, p.key) // cleared away, and replaced below
			continue
		case p.hash == hash:
			current = append(current, p)
		default:
			old = append(old, p)
		}
		if p.ready {
			ready++
			steady = steady && p.steady
		}
	}
	// The least valuable first: not ready before ready, young before old.
	slices.SortStableFunc(current, leastValuable)
	slices.SortStableFunc(old, leastValuable)

	for len(current) > set.Replicas {
		if current[0].ready {
			ready--
		}
		d.stop = append(d.stop, current[0].key)
		current = current[1:]
	}
	for len(old) > 0 && (set.Recreate || !old[0].ready || ready > set.Replicas) {
		if old[0].ready {
			ready--
		}
		d.stop = append(d.stop, old[0].key)
		old = old[1:]
	}
	room := set.Replicas - len(current)
	switch {
	case set.Recreate && (oldEnding || len(d.stop) > 0):
		room = 0 // their end is the next event
	case len(old) > 0:
		room = min(room, set.Replicas+1-len(current)-len(old))
	}
	for range room {
		d.start = append(d.start, 0)
	}
	d.settled = len(d.start)+len(d.stop)+len(old) == 0 && ready == set.Replicas && steady
	return d
}

func leastValuable(a, b replica) int {
	if a.ready != b.ready {
		if b.ready {
			return -1
		}
		return 1
	}
	return cmp.Or(b.created.Compare(a.created), cmp.Compare(a.key, b.key))
}

// planStateful keeps name-0 … name-(n-1): started in order, each after the one
// before is ready (unless Parallel); ended and replaced from the last to the first, one at a time
// (OrderedReady and RollingUpdate).
func planStateful(set *mesh.WorkloadSet, hash string, pods []replica) decision {
	slices.SortFunc(pods, func(a, b replica) int { return cmp.Compare(a.ordinal, b.ordinal) })
	if set.Parallel {
		if d := scaleParallel(set, pods); len(d.start)+len(d.stop) > 0 {
			return d
		}
	}
	if slices.ContainsFunc(pods, func(p replica) bool { return p.stopping }) {
		return decision{} // its end is the next event
	}
	if n := len(pods); n > 0 && pods[n-1].ordinal >= set.Replicas {
		return decision{stop: []string{pods[n-1].key}}
	}
	for i := range set.Replicas {
		if i >= len(pods) || pods[i].ordinal != i {
			return decision{start: []int{i}}
		}
		if pods[i].ended {
			return decision{stop: []string{pods[i].key}}
		}
		if !pods[i].ready && pods[i].hash == hash {
			return decision{} // wait
		}
		if !pods[i].ready {
			// The old template may never become ready: Kubernetes waits for
			// ever here, which helps nobody.
			return decision{stop: []string{pods[i].key}}
		}
	}
	for _, p := range slices.Backward(pods) {
		if p.hash != hash {
			return decision{stop: []string{p.key}}
		}
	}
	return decision{settled: !slices.ContainsFunc(pods, func(p replica) bool { return !p.steady })}
}

// scaleParallel starts all replicas that are missing and ends all that are too many
// at once, whatever the others do. New templates are rolled out one by one all the
// same, as in Kubernetes.
func scaleParallel(set *mesh.WorkloadSet, pods []replica) decision {
	var d decision
	held := map[int]bool{}
	for _, p := range pods {
		held[p.ordinal] = true
		if !p.stopping && (p.ended || p.ordinal >= set.Replicas) {
			d.stop = append(d.stop, p.key)
		}
	}
	for i := range set.Replicas {
		if !held[i] {
			d.start = append(d.start, i)
		}
	}
	return d
}

// planJob runs up to Replicas pods at a time until Completions of them succeeded or
// the Job has failed. With no Replicas it is suspended: nothing runs, and nothing is
// missing. Ended pods stay as a record.
func planJob(set *mesh.WorkloadSet, hash string, pods []replica, now time.Time) decision {
	var d decision
	var active []replica
	steady, succeeded, failed, restarts, stopping := 0, 0, 0, 0, false
	var lastFailure time.Time
	for _, p := range pods {
		stopping = stopping || p.stopping
		switch {
		case p.hash != hash && !p.stopping:
			d.stop = append(d.stop, p.key)
			continue
		case p.hash != hash:
			continue
		case p.ended && p.succeeded:
			succeeded++
			continue
		case p.ended:
			failed++
			if p.finished.After(lastFailure) {
				lastFailure = p.finished
			}
		case !p.stopping:
			active = append(active, p)
			if p.ready && p.steady {
				steady++
			}
		}
		restarts += p.restarts
	}
	if d.failed = jobFailed(set, failed, restarts); d.failed {
		for _, p := range active {
			d.giveUp = append(d.giveUp, p.key)
		}
		d.settled = len(active)+len(d.stop) == 0 && !stopping
		return d
	}
	completions := max(set.Completions, 1)
	want := max(0, min(set.Replicas, completions-succeeded)) - len(active)
	slices.SortStableFunc(active, leastValuable)
	for i := range max(0, -want) {
		d.stop = append(d.stop, active[i].key)
	}
	if want > 0 && failed > 0 {
		delay := jobBackoffMax
		if failed <= 6 {
			delay = min(jobBackoffInitial<<(failed-1), jobBackoffMax)
		}
		if wait := lastFailure.Add(delay).Sub(now); wait > 0 {
			d.again = wait
			return d
		}
	}
	for range want {
		d.start = append(d.start, 0)
	}
	// A Job may run for days: what it needs to run, runs.
	d.settled = len(d.start)+len(d.stop) == 0 && (len(active) == steady || succeeded >= completions)
	return d
}

// jobFailed reports whether a Job is given up, as Kubernetes does it (pkg/controller/job,
// exceedsBackoffLimit and pastBackoffLimitOnFailure): more pods failed than
// BackoffLimit, or those that have not succeeded were restarted in place that often.
// Kubernetes remembers that a Job has failed, and counts only the restarts of pods
// that run; here the restarts of the pods that were given up keep it failed.
func jobFailed(set *mesh.WorkloadSet, failed, restarts int) bool {
	return failed > set.BackoffLimit ||
		set.Restart == mesh.RestartOnFailure && restarts >= max(set.BackoffLimit, 1)
}
