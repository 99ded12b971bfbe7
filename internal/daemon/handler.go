package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local"
	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/metricstore"
)

// maxBody bounds what a client of the control socket may send: the final
// metrics of a proxy are the largest.
const maxBody = 64 << 20

// controlHandler serves the control socket, whose directory only its owner may
// enter.
func (m *Mesh) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { reply(w, m.Status(), nil) })
	mux.HandleFunc("GET /v1/pods", func(w http.ResponseWriter, _ *http.Request) { reply(w, m.podsWithPIDs(), nil) })
	mux.HandleFunc("GET /v1/logs", m.serveLogs)
	mux.HandleFunc("POST /v1/restart", action(func(ctx context.Context, targets []string) ([]string, error) {
		pods, err := m.local.Restart(ctx, targets)
		return pods, m.whereNamed(err)
	}))
	mux.HandleFunc("POST /v1/remove", action(func(ctx context.Context, targets []string) (struct{}, error) {
		return struct{}{}, m.remove(ctx, targets)
	}))
	mux.HandleFunc("POST /v1/down", func(w http.ResponseWriter, r *http.Request) {
		m.once.Do(func() { close(m.stop) })
		select {
		case <-m.stopped:
			reply(w, struct{}{}, m.stopErr)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST /v1/run", action(func(ctx context.Context, r RunRequest) (RunResponse, error) {
		return m.register(ctx, &r)
	}))
	mux.HandleFunc("POST /v1/final", m.serveFinal)
	return http.MaxBytesHandler(mux, maxBody)
}

// action answers a request, which is one JSON value, with what do makes of it.
func action[Request, Answer any](do func(context.Context, Request) (Answer, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req Request
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			reply(w, nil, fmt.Errorf("read the request: %w", err))
			return
		}
		answer, err := do(r.Context(), req)
		reply(w, answer, err)
	}
}

// reply writes v, or err as an apiError.
func reply(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		v = apiError{Error: err.Error()}
	}
	_ = json.NewEncoder(w).Encode(v) // a client that left needs no answer
}

// Status is what runs now. It may be called while the mesh is served, by any number
// of goroutines.
func (m *Mesh) Status() Status {
	m.mu.Lock() // not while services and sets are changed together
	leftOut, state := m.leftOut, m.local.State()
	m.mu.Unlock()
	known := m.known(state.Pods, time.Now())
	snapshot := m.plane.Snapshot()
	s := Status{
		Version: m.cfg.Version, PID: os.Getpid(), Started: m.started, RunDir: m.cfg.RunDir, DataDir: m.cfg.DataDir,
		Prometheus: "http://" + m.promAddr, Control: "http://" + m.ctrlAddr, Services: len(snapshot.Services),
		ScrapeInterval: m.cfg.ScrapeInterval,
		Known:          known, Settled: m.store.Ready() && state.Settled && known, Published: []Opening{}, LeftOut: leftOut,
	}
	for i := range snapshot.Services {
		svc := &snapshot.Services[i]
		for _, p := range svc.Ports {
			for _, a := range p.Publish {
				s.Published = append(s.Published, Opening{URL: urlOf(a, p.Protocol), Service: svc.Name + "." + svc.Namespace})
			}
		}
	}
	for set, err := range state.CreateErrors {
		s.NotMade = append(s.NotMade, NotMade{workloadSet(set), strings.ReplaceAll(err.Error(), "\n", "; ")})
	}
	slices.SortFunc(s.NotMade, func(a, b NotMade) int { return a.compare(b.WorkloadSet) })
	for _, set := range state.FailedJobs {
		s.FailedJobs = append(s.FailedJobs, workloadSet(set))
	}
	slices.SortFunc(s.FailedJobs, WorkloadSet.compare)
	for i := range state.Pods {
		p := &state.Pods[i]
		if p.Status.Phase == pod.Failed {
			continue // it was replaced, or will not be
		}
		s.Workloads++
		if p.Workload.Ready || p.Status.Phase == pod.Succeeded {
			s.Ready++
		}
	}
	return s
}

func workloadSet(n local.SetName) WorkloadSet {
	return WorkloadSet{Kind: string(n.Kind), Namespace: n.Namespace, Name: n.Name}
}

// serveFinal stores the last metrics of a proxy that ends, so that nothing
// counted since the last scrape is lost.
func (m *Mesh) serveFinal(w http.ResponseWriter, r *http.Request) {
	key := r.URL.Query().Get("pod")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		reply(w, nil, fmt.Errorf("read the metrics: %w", err))
		return
	}
	for _, p := range m.local.Pods() {
		if p.Workload.Key() == key {
			// The caller may leave before it is stored: its data is here.
			ctx := context.WithoutCancel(r.Context())
			err := m.store.AppendFinal(ctx, proxyJob, proxyTarget(&p.Workload), r.Header.Get("Content-Type"), body)
			if err != nil {
				m.io.Log.Warn("last metrics of a proxy were not stored", "pod", key, "error", err)
			}
			reply(w, struct{}{}, err)
			return
		}
	}
	reply(w, nil, fmt.Errorf("no workload %q", key))
}

// queryHandler serves the Prometheus API: the store's own, or an external
// server's in its place.
func (m *Mesh) queryHandler() (http.Handler, error) {
	if m.cfg.QueryURL == "" {
		return m.store.Handler(), nil
	}
	remote, err := metricstore.NewRemote(m.cfg.QueryURL)
	if err != nil {
		return nil, fmt.Errorf("--query-url: %w", err)
	}
	return remote.Handler(), nil
}
