package control

import (
	"reflect"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
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
	registered  *prometheus.CounterVec
	debounce    prometheus.Histogram
	noIP        prometheus.Counter
	conflicts   prometheus.Gauge
	stateErrors prometheus.Counter
}

// newPlaneMetrics makes the metrics of a plane. Those that describe the
// configuration are worked out at each scrape, of what published returns.
func newPlaneMetrics(start time.Time, version string, published func() *publication) *planeMetrics {
	m := &planeMetrics{
		registry: prometheus.NewRegistry(),
		services: prometheus.NewGauge(prometheus.GaugeOpts{Name: "pilot_services", Help: "Services known to the control plane."}),
		inbound: prometheus.NewCounterVec(prometheus.CounterOpts{ //nolint:promlinter // Istio's name
			Name: "pilot_inbound_updates", Help: "Changes received by the control plane, by kind.",
		}, []string{"type"}),
		triggers: prometheus.NewCounterVec(prometheus.CounterOpts{ //nolint:promlinter // Istio's name
			Name: "pilot_push_triggers", Help: "Changes that lead to a push, by reason.",
		}, []string{"type"}),
		registered: prometheus.NewCounterVec(prometheus.CounterOpts{ //nolint:promlinter // Istio's name
			Name: "pilot_k8s_reg_events", Help: "Changes of services and workloads, by kind of object.",
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
	noInstances := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "pilot_eds_no_instances", Help: "Clusters without an endpoint: a port of a service with nothing ready behind it.",
	}, func() float64 { return float64(withoutInstances(published())) })
	notReady := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "pilot_endpoint_not_ready", Help: "Workloads behind a service that are not ready.",
	}, func() float64 { return float64(workloadsNotReady(published().snapshot)) })
	m.registry.MustRegister(noInstances, notReady, m.services, m.inbound, m.triggers, m.registered, m.debounce, m.noIP, m.conflicts, m.stateErrors, uptime, build)
	return m
}

// withoutInstances counts the clusters that lead nowhere.
func withoutInstances(p *publication) int {
	n := 0
	for _, e := range p.views.common().endpoints {
		if len(e.Endpoints) == 0 {
			n++
		}
	}
	return n
}

// workloadsNotReady counts the workloads that a service selects and that are not ready.
func workloadsNotReady(s *mesh.Snapshot) int {
	n := 0
	for i := range s.Workloads {
		w := &s.Workloads[i]
		behind := func(svc mesh.Service) bool { return selects(&svc, w) }
		if !w.Ready && slices.ContainsFunc(s.Services, behind) {
			n++
		}
	}
	return n
}

func (m *planeMetrics) pushed(t trigger) {
	kind := "svc"
	if t != triggerService {
		kind = "eds"
	}
	m.inbound.WithLabelValues(kind).Inc()
	m.triggers.WithLabelValues(string(t)).Inc()
}

// object is a kind of object as pilot_k8s_reg_events{type} names it.
type object string

const (
	objectService   object = "Services"
	objectWorkload  object = "Pods"
	objectEndpoints object = "EndpointSlice"
)

// event is what became of an object, as pilot_k8s_reg_events{event} names it.
type event string

const (
	eventAdd    event = "add"
	eventUpdate event = "update"
	eventDelete event = "delete"
)

func (m *planeMetrics) happened(o object, e event) {
	m.registered.WithLabelValues(string(o), string(e)).Inc()
}

// servicesChanged counts what became of the services of one source.
func (m *planeMetrics) servicesChanged(before, after []mesh.Service) {
	old := map[string]*mesh.Service{}
	for i := range before {
		old[before[i].Host] = &before[i]
	}
	for i := range after {
		was := old[after[i].Host]
		delete(old, after[i].Host)
		switch {
		case was == nil:
			m.happened(objectService, eventAdd)
		case !reflect.DeepEqual(*was, after[i]):
			m.happened(objectService, eventUpdate)
		}
	}
	for range old {
		m.happened(objectService, eventDelete)
	}
}

func (m *planeMetrics) published(services int, waited time.Duration) {
	m.services.Set(float64(services))
	m.debounce.Observe(waited.Seconds())
}

// Metrics are the control plane's metrics.
func (p *Plane) Metrics() prometheus.Gatherer { return p.metrics.registry }
