package ads

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// serverMetrics are the metrics of pushes under Istio's names
// (pilot/pkg/xds/monitoring.go), which have no _total suffix.
type serverMetrics struct {
	registry    *prometheus.Registry
	pushes      *prometheus.CounterVec
	rejects     *prometheus.CounterVec
	size        *prometheus.HistogramVec
	pushTime    *prometheus.HistogramVec
	queueTime   prometheus.Histogram
	convergence prometheus.Histogram
	errors      prometheus.Counter
	stuck       prometheus.Counter
}

// newServerMetrics makes the metrics of a server; connected counts its proxies.
func newServerMetrics(version string, connected func() int) *serverMetrics {
	m := &serverMetrics{
		registry: prometheus.NewRegistry(),
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{ //nolint:promlinter // Istio's name
			Name: "pilot_xds_pushes", Help: "Responses sent to proxies, by type.",
		}, []string{"type"}),
		rejects: prometheus.NewCounterVec(prometheus.CounterOpts{ //nolint:promlinter // Istio's name
			Name: "pilot_total_xds_rejects", Help: "Responses that proxies refused, by type.",
		}, []string{"type"}),
		size: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "pilot_xds_config_size_bytes", Help: "Size of the responses sent to proxies.",
			Buckets: []float64{1, 1e4, 1e6, 4e6, 1e7, 4e7},
		}, []string{"type"}),
		pushTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "pilot_xds_push_time", Help: "Seconds from working out a response until it is written, by type.",
			Buckets: []float64{.01, .1, 1, 3, 5, 10, 20, 30},
		}, []string{"type"}),
		queueTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pilot_proxy_queue_time", Help: "Seconds from the announcement of a change until it is worked out for a proxy.",
			Buckets: []float64{.1, .5, 1, 3, 5, 10, 20, 30},
		}),
		convergence: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pilot_proxy_convergence_time", Help: "Seconds from the publication of a change until a proxy has accepted it.",
			Buckets: []float64{.1, .5, 1, 3, 5, 10, 20, 30},
		}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{ //nolint:promlinter // Istio's name
			Name: "pilot_total_xds_internal_errors", Help: "Configurations that could not be encoded.",
		}),
		stuck: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_xds_stuck_proxies_total", Help: "Proxies cut off because they left a response unanswered.",
		}),
	}
	proxies := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "pilot_xds", Help: "Proxies connected to the control plane.",
		ConstLabels: prometheus.Labels{"version": version},
	}, func() float64 { return float64(connected()) })
	m.registry.MustRegister(proxies, m.pushes, m.rejects, m.size, m.pushTime, m.queueTime, m.convergence, m.errors, m.stuck)
	return m
}

// sent counts a response that was written at the given time.
func (m *serverMetrics) sent(r *response, at time.Time) {
	kind := r.kind.String()
	m.pushes.WithLabelValues(kind).Inc()
	m.size.WithLabelValues(kind).Observe(float64(r.size))
	m.pushTime.WithLabelValues(kind).Observe(at.Sub(r.planned).Seconds())
}
