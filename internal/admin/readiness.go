package admin

import (
	"net/http"
	"slices"
	"strings"
	"sync"
)

// State is the state of a proxy, named as in Envoy.
type State string

// The states.
const (
	StateLive         State = "LIVE"
	StateDraining     State = "DRAINING"
	StateInitializing State = "INITIALIZING"
)

// Readiness is a set of named tasks: the proxy is ready while none is pending.
// What is pending is told to whoever asks, so that "not ready" always has a
// reason. The zero Readiness is ready.
type Readiness struct {
	mu       sync.Mutex
	pending  []string // in the order in which they were added
	draining bool
	failed   bool
}

// NewReadiness makes a Readiness with these tasks pending.
func NewReadiness(tasks ...string) *Readiness {
	r := &Readiness{}
	for _, t := range tasks {
		r.Add(t)
	}
	return r
}

// Add makes a task pending, at the beginning or again later. A task that is
// pending already stays so.
func (r *Readiness) Add(task string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.pending, task) {
		r.pending = append(r.pending, task)
	}
}

// Done ends a task. Ending one that is not pending does nothing.
func (r *Readiness) Done(task string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = slices.DeleteFunc(r.pending, func(t string) bool { return t == task })
}

// Drain makes the proxy not ready for good: it takes no new work.
func (r *Readiness) Drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = true
}

// Fail makes the proxy say that it is draining (true), as Envoy does whose health
// check was failed on demand, or takes that back (false).
func (r *Readiness) Fail(fail bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = fail
}

// Pending lists the tasks that are not done. The caller owns the result.
func (r *Readiness) Pending() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.pending)
}

// State is the state that follows from the tasks.
func (r *Readiness) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.draining, r.failed:
		return StateDraining
	case len(r.pending) > 0:
		return StateInitializing
	}
	return StateLive
}

// ServeHTTP answers as Istio's agent does on /healthz/ready: 200 when ready,
// otherwise 503; the body says why.
func (r *Readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	body := "ready\n"
	switch r.State() {
	case StateLive:
	case StateDraining:
		w.WriteHeader(http.StatusServiceUnavailable)
		body = "not ready: draining\n"
	case StateInitializing:
		w.WriteHeader(http.StatusServiceUnavailable)
		body = "not ready: waiting for " + strings.Join(r.Pending(), ", ") + "\n"
	}
	write(w, body)
}
