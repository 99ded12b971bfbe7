package admin

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	state := s.o.Readiness.State()
	if state != StateLive {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	write(w, string(state)+"\n")
	for _, task := range s.o.Readiness.Pending() {
		write(w, "waiting for "+task+"\n")
	}
}

// node is envoy.config.core.v3.Node of this proxy, with Istio's metadata.
func (s *Server) node() any {
	self := &s.o.Self
	return map[string]any{
		"id":      self.NodeID(),
		"cluster": self.CanonicalName() + "." + self.Namespace,
		"metadata": map[string]any{
			"NAME":            self.Name,
			"NAMESPACE":       self.Namespace,
			"WORKLOAD_NAME":   self.Owner,
			"SERVICE_ACCOUNT": self.ServiceAccount,
			"CLUSTER_ID":      clusterID(self),
			"LABELS":          self.Labels,
			"ISTIO_VERSION":   s.o.Version,
		},
	}
}

func clusterID(w *mesh.Workload) string {
	if w.Cluster == "" {
		return mesh.DefaultCluster
	}
	return w.Cluster
}

func (s *Server) serverInfo(w http.ResponseWriter, _ *http.Request) {
	uptime := strconv.FormatInt(int64(time.Since(s.o.Started)/time.Second), 10) + "s"
	writeJSON(w, map[string]any{
		"version":              fmt.Sprintf("vitrine/%s/%s", s.o.Version, runtime.Version()),
		"state":                s.o.Readiness.State(),
		"hot_restart_version":  "disabled",
		"uptime_current_epoch": uptime,
		"uptime_all_epochs":    uptime,
		"node":                 s.node(),
	})
}

func (s *Server) memory(w http.ResponseWriter, _ *http.Request) {
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(samples)
	value := func(i int) string {
		if samples[i].Value.Kind() != metrics.KindUint64 {
			return "0"
		}
		return uint64s(samples[i].Value.Uint64())
	}
	// The members of envoy.admin.v3.Memory; a Go heap has no thread caches to show.
	writeJSON(w, map[string]string{
		"allocated":          value(0),
		"heap_size":          value(1),
		"pageheap_unmapped":  value(2),
		"pageheap_free":      value(3),
		"total_thread_cache": "0",
	})
}

func (s *Server) certs(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]any{"certificates": []any{}})
}

func (s *Server) runtime(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]any{"layers": []any{}, "entries": map[string]any{}})
}

func (s *Server) logging(w http.ResponseWriter, req *http.Request) {
	if s.o.Level == nil {
		http.Error(w, "the log level cannot be changed", http.StatusNotImplemented)
		return
	}
	if name := req.URL.Query().Get("level"); name != "" {
		level, ok := levelOf(name)
		if !ok {
			http.Error(w, fmt.Sprintf("level %q: use debug, info, warning or error", name), http.StatusBadRequest)
			return
		}
		s.o.Level.Set(level)
		s.o.Log.Info("log level changed", "level", level.String())
	}
	write(w, "active loggers:\n  proxy: "+levelName(s.o.Level.Level())+"\n")
}

// levelOf knows the names of Envoy's levels.
func levelOf(name string) (slog.Level, bool) {
	switch strings.ToLower(name) {
	case "trace", "debug":
		return slog.LevelDebug, true
	case "info":
		return slog.LevelInfo, true
	case "warning", "warn":
		return slog.LevelWarn, true
	case "error", "critical", "off":
		return slog.LevelError, true
	}
	return 0, false
}

func levelName(l slog.Level) string {
	switch {
	case l <= slog.LevelDebug:
		return "debug"
	case l <= slog.LevelInfo:
		return "info"
	case l <= slog.LevelWarn:
		return "warning"
	}
	return "error"
}

func (s *Server) quit(w http.ResponseWriter, _ *http.Request) {
	if s.o.Quit == nil {
		http.Error(w, "this process does not end on request", http.StatusNotImplemented)
		return
	}
	s.o.Log.Info("asked to end by the admin interface")
	write(w, "OK\n")
	s.o.Quit()
}

func (s *Server) healthFail(w http.ResponseWriter, _ *http.Request) { s.setHealth(w, true) }
func (s *Server) healthOK(w http.ResponseWriter, _ *http.Request)   { s.setHealth(w, false) }

func (s *Server) setHealth(w http.ResponseWriter, fail bool) {
	if s.o.FailHealth == nil {
		http.Error(w, "the health check cannot be changed", http.StatusNotImplemented)
		return
	}
	s.o.FailHealth(fail)
	write(w, "OK\n")
}
