package control

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// trigger is the reason of a push, as pilot_push_triggers{type} names it.
type trigger string

const (
	triggerService  trigger = "service"
	triggerEndpoint trigger = "endpoint"
	triggerWorkload trigger = "workload"
)

// planeMetrics are the control plane's metrics under Istio's names
// (pilot/pkg/xds/monitoring.go), which have no _total suffix.
type planeMetrics struct {
	registry    *prometheus.Registry
	services    prometheus.Gauge
	inbound     *prometheus.CounterVec
	triggers    *prometheus.CounterVec
	events      *prometheus.CounterVec
	debounce    prometheus.Histogram
	noIP        prometheus.Counter
	conflicts   prometheus.Gauge
	stateErrors prometheus.Counter
}

func newPlaneMetrics(start time.Time, version string) *planeMetrics {
	m := &planeMetrics{
		registry: prometheus.NewRegistry(),
		services: prometheus.NewGauge(prometheus.GaugeOpts{Name: "pilot_services", Help: "Services known to the control plane."}),
		inbound: prometheus.NewCounterVec(prometheus.CounterOpts{ //nolint:promlinter // Istio's name
			Name: "pilot_inbound_updates", Help: "Changes received by the control plane, by kind.",
		}, []string{"type"}),
		triggers: prometheus.NewCounterVec(prometheus.CounterOpts{ //nolint:promlinter // Istio's name
			Name: "pilot_push_triggers", Help: "Changes that lead to a push, by reason.",
		}, []string{"type"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{ //nolint:promlinter // Istio's name
			Name: "pilot_k8s_cfg_events", Help: "Configuration events, by kind of object.",
		}, []string{"type", "event"}),
		debounce: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pilot_debounce_time", Help: "Seconds between the first change and its publication.",
			Buckets: []float64{.01, .1, 1, 3, 5, 10, 20, 30},
		}),
		noIP: prometheus.NewCounter(prometheus.CounterOpts{ //nolint:promlinter // Istio's name
			Name: "pilot_no_ip", Help: "Services that got no virtual IP.",
		}),
		conflicts: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vitrine_control_duplicate_services", Help: "Hosts that more than one source defines.",
		}),
		stateErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vitrine_control_state_errors_total", Help: "Failures to read or write the file that keeps addresses.",
		}),
	}
	uptime := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "istiod_uptime_seconds", Help: "Seconds since the control plane started.",
	}, func() float64 { return time.Since(start).Seconds() })
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "istio_build", Help: "Component and version, always 1.",
		ConstLabels: prometheus.Labels{"component": "pilot", "tag": version},
	})
	build.Set(1)
	m.registry.MustRegister(m.services, m.inbound, m.triggers, m.events, m.debounce, m.noIP, m.conflicts, m.stateErrors, uptime, build)
	return m
}

func (m *planeMetrics) event(t trigger) {
	kind := "svc"
	if t != triggerService {
		kind = "eds"
	}
	m.inbound.WithLabelValues(kind).Inc()
	m.triggers.WithLabelValues(string(t)).Inc()
	m.events.WithLabelValues(string(t), "update").Inc()
}

func (m *planeMetrics) published(services int, waited time.Duration) {
	m.services.Set(float64(services))
	m.debounce.Observe(waited.Seconds())
}

// Metrics are the control plane's metrics.
func (p *Plane) Metrics() prometheus.Gatherer { return p.metrics.registry }
