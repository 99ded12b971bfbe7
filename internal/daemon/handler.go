package daemon

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"github.com/vitrine-mesh/vitrine/internal/local"
	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/metricstore"
	"github.com/vitrine-mesh/vitrine/internal/xds/ads"
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
	mux.HandleFunc("POST /v1/restart", func(w http.ResponseWriter, r *http.Request) {
		var targets []string
		if err := json.NewDecoder(r.Body).Decode(&targets); err != nil {
			reply(w, nil, fmt.Errorf("read the request: %w", err))
			return
		}
		names, err := m.local.Restart(r.Context(), targets)
		reply(w, names, err)
	})
	mux.HandleFunc("POST /v1/remove", func(w http.ResponseWriter, r *http.Request) {
		var targets []string
		if err := json.NewDecoder(r.Body).Decode(&targets); err != nil {
			reply(w, nil, fmt.Errorf("read the request: %w", err))
			return
		}
		reply(w, struct{}{}, m.remove(r.Context(), targets))
	})
	mux.HandleFunc("POST /v1/down", func(w http.ResponseWriter, r *http.Request) {
		m.once.Do(func() { close(m.stop) })
		select {
		case <-m.stopped:
			reply(w, struct{}{}, nil)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST /v1/run", func(w http.ResponseWriter, r *http.Request) {
		var req RunRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			reply(w, nil, fmt.Errorf("read the request: %w", err))
			return
		}
		resp, err := m.register(r.Context(), &req)
		reply(w, resp, err)
	})
	mux.HandleFunc("POST /v1/final", m.serveFinal)
	return http.MaxBytesHandler(mux, maxBody)
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

// Status is what runs now. It may be called once Settled is closed, by any
// number of goroutines.
func (m *Mesh) Status() Status {
	snapshot := m.plane.Snapshot()
	s := Status{
		Version: m.cfg.Version, PID: os.Getpid(), Started: m.started, RunDir: m.cfg.RunDir, DataDir: m.cfg.DataDir,
		Prometheus: "http://" + m.promAddr, Control: "http://" + m.ctrlAddr, Services: len(snapshot.Services),
		Settled: m.store.Ready() && m.local.Settled(), Published: []Opening{},
	}
	for i := range snapshot.Services {
		svc := &snapshot.Services[i]
		for _, p := range svc.Ports {
			for _, a := range p.Publish {
				s.Published = append(s.Published, Opening{URL: urlOf(a, p.Protocol), Service: svc.Name + "." + svc.Namespace})
			}
		}
	}
	m.mu.Lock()
	s.LeftOut = m.leftOut
	m.mu.Unlock()
	for _, p := range m.local.Pods() {
		s.Workloads++
		if p.Workload.Ready || p.Status.Phase == pod.Succeeded {
			s.Ready++
		}
	}
	return s
}

func (m *Mesh) pods() []Pod {
	proxies := map[string]ads.ProxyStatus{}
	for _, p := range m.xds.Status() {
		if key, err := mesh.ParseNodeID(p.Node); err == nil {
			proxies[key] = p
		}
	}
	out := []Pod{}
	for _, p := range m.local.Pods() {
		proxy, connected := proxies[p.Workload.Key()]
		out = append(out, podOf(&p, proxyStateOf(&proxy, connected)))
	}
	return out
}

// podsWithPIDs adds the processes of each pod, for which all of the machine's
// have to be looked at.
func (m *Mesh) podsWithPIDs() []Pod {
	pods := m.pods()
	usage, err := m.local.Usage()
	if err != nil {
		m.io.Log.Warn("processes of pods are not known", "error", err)
	}
	for i := range pods {
		pods[i].PIDs = []int{}
		for _, u := range usage {
			if u.Namespace == pods[i].Namespace && u.Pod == pods[i].Name && u.Container != pod.ProxyContainer {
				pods[i].PIDs = append(pods[i].PIDs, u.PIDs...)
			}
		}
	}
	return pods
}

func podOf(p *local.PodStatus, proxy ProxyState) Pod {
	w := &p.Workload
	out := Pod{
		Namespace: w.Namespace, Name: w.Name, Owner: w.Owner, Kind: w.OwnerKind, App: w.App(), Version: w.Version(),
		IP: w.IP.String(), Ports: []uint16{}, Phase: string(p.Status.Phase), Status: statusWord(p),
		Reason: p.Status.Reason, Message: p.Status.Message, Ready: w.Ready,
		Restarts: p.Restarts, Started: p.Created, ProxyPID: p.ProxyPID, Proxy: proxy,
		Containers: []Container{},
	}
	if out.Phase == "" {
		out.Phase = string(pod.Pending)
	}
	if p.Stopping {
		out.Reason = pod.ReasonTerminating
	}
	for _, port := range w.Ports {
		out.Ports = append(out.Ports, port.Port)
	}
	for _, c := range p.Status.Containers {
		if c.Init {
			continue
		}
		row := Container{
			Name: c.Name, State: string(c.State), Ready: c.Ready, Reason: c.Reason, Message: c.Message,
			PID: c.PID, Restarts: c.Restarts, Started: c.Since,
		}
		if c.LastExit != nil {
			row.ExitCode, row.LastError = &c.LastExit.Code, c.LastExit.Message
		}
		out.Containers = append(out.Containers, row)
	}
	return out
}

// statusWord is what kubectl's STATUS column would say of a pod
// (kubernetes/pkg/printers/internalversion, printPod).
func statusWord(p *local.PodStatus) string {
	st := &p.Status
	if p.Stopping {
		return pod.ReasonTerminating
	}
	word := cmp.Or(st.Reason, string(st.Phase), string(pod.Pending))
	inits, done := 0, 0
	for _, c := range st.Containers {
		if c.Init {
			inits++
		}
	}
	running := false
	for _, c := range slices.Backward(st.Containers) {
		switch {
		case c.Init:
		case c.State != pod.Live && c.Reason != "":
			word = c.Reason
		case c.State == pod.Live:
			running = true
		}
	}
	if running && (word == pod.ReasonCompleted || st.Phase == pod.Running && word == st.Reason) {
		word = string(pod.Running)
	}
	for _, c := range st.Containers {
		if !c.Init || st.Phase != pod.Pending {
			break
		}
		switch {
		case c.State == pod.Terminated && c.LastExit != nil && c.LastExit.Code == 0:
			done++
			continue
		case c.State == pod.Live || c.Reason == "" || c.Reason == pod.ReasonCreating || c.Reason == pod.ReasonInit:
			return fmt.Sprintf("Init:%d/%d", done, inits)
		}
		return "Init:" + c.Reason
	}
	return word
}

func proxyStateOf(p *ads.ProxyStatus, connected bool) ProxyState {
	s := ProxyState{Connected: connected, Synced: connected && p.Fault == ""}
	if p.Fault != "" {
		s.Rejected = "not told: " + p.Fault
	}
	for i := range p.Types {
		t := &p.Types[i]
		s.Synced = s.Synced && t.InSync()
		if t.LastError != "" && s.Rejected == "" {
			s.Rejected = fmt.Sprint(t.Kind) + ": " + t.LastError
		}
	}
	return s
}

// serveLogs streams lines; several sources are told apart by a prefix.
func (m *Mesh) serveLogs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	tail, err := strconv.Atoi(q.Get("tail"))
	if err != nil {
		tail = -1
	}
	o := local.LogOptions{Targets: q["target"], Container: q.Get("container"), Follow: q.Get("follow") == "true", Tail: tail}
	if o.Follow {
		// Without this, a name that is misspelt would be waited for.
		for _, target := range o.Targets {
			if m.matching(target) == 0 {
				reply(w, nil, fmt.Errorf("nothing is called %q: see `vitrine ps`", target))
				return
			}
		}
	}
	prefix := len(o.Targets) != 1 || m.matching(o.Targets[0]) > 1 && o.Container == ""
	flusher, _ := w.(http.Flusher)
	wrote := false
	err = m.local.Logs(r.Context(), o, func(pod, container string, line []byte) error {
		wrote = true
		var b []byte
		if prefix {
			b = append(b, linePrefix(pod, container)...)
		}
		if _, err := w.Write(append(append(b, line...), '\n')); err != nil {
			return fmt.Errorf("send logs: %w", err)
		}
		if o.Follow && flusher != nil {
			flusher.Flush()
		}
		return nil
	})
	if err != nil && !wrote {
		reply(w, nil, err)
	}
}

// matching counts the containers that a target names.
func (m *Mesh) matching(target string) int {
	n := 0
	for _, p := range m.local.Pods() {
		ns, name, ok := strings.Cut(target, "/")
		if !ok {
			ns, name = p.Workload.Namespace, target
		}
		if ns == p.Workload.Namespace && (name == p.Workload.Name || name == p.Workload.Owner) {
			n += max(1, len(p.Status.Containers))
		}
	}
	return n
}

func linePrefix(pod, container string) string { return "[" + pod + " " + container + "] " }

// printer writes the programs' lines to out, whole.
func printer(out io.Writer) func(pod, container string, line []byte) {
	var mu sync.Mutex
	return func(pod, container string, line []byte) {
		mu.Lock()
		defer mu.Unlock()
		var b bytes.Buffer
		b.WriteString(linePrefix(pod, container))
		b.Write(line)
		b.WriteByte('\n')
		_, _ = out.Write(b.Bytes()) // nobody to tell if our own output is gone
	}
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

// metricsHandler serves the control plane's own metrics under Istio's names,
// and the resource use of programs and proxies under cAdvisor's.
func (m *Mesh) metricsHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	all := prometheus.Gatherers{m.plane.Metrics(), m.xds.Metrics(), registry}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		var b bytes.Buffer
		err := errors.Join(writeMetrics(&b, all), m.local.WriteMetrics(&b))
		if err != nil {
			m.io.Log.Error("control-plane metrics", "error", err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = w.Write(b.Bytes())
	})
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if !m.store.Ready() {
			http.Error(w, "the metric store is not ready", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	return mux
}

// writeMetrics writes metrics in Prometheus's text format.
func writeMetrics(w io.Writer, from prometheus.Gatherer) error {
	families, err := from.Gather()
	if err != nil {
		return fmt.Errorf("gather metrics: %w", err)
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(w, f); err != nil {
			return fmt.Errorf("write metrics: %w", err)
		}
	}
	return nil
}

// localOptions connects the supervisor to the control plane.
func (m *Mesh) localOptions() local.Options {
	return local.Options{
		RunDir: m.cfg.RunDir, DataDir: m.cfg.DataDir, ProxyBinary: m.cfg.ProxyBinary, Net: m.net,
		XDSSocket: m.path(xdsSocket), ControlSocket: m.path(controlSocket),
		EvictAfter: m.cfg.EvictAfter,
		Unlisted:   m.awaitUnlisted,
		Index:      m.plane.Index, Claim: m.plane.Claim, Release: m.plane.Release,
		Hooks: local.Hooks{
			WorkloadChanged: func(w mesh.Workload) { m.plane.SetWorkload(w) },
			WorkloadGone: func(key string) {
				m.plane.RemoveWorkload(key)
				m.unregister(key)
			},
		},
		Output: printer(m.io.Output), Log: m.io.Log.With("component", "local"),
	}
}
