package telemetry

import (
	"sync/atomic"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// EdgeKey names one edge of the service graph as seen by this proxy: the
// local workload on one side, a peer and a service on the other.
type EdgeKey struct {
	// Direction is Inbound for traffic to the local program.
	Direction mesh.Direction
	// Peer is the workload at the other end: the client for inbound, the
	// chosen endpoint for outbound traffic. nil is unknown. It is read during
	// the call only.
	Peer *mesh.Workload
	// Service is the service that is called; zero if there is none.
	Service mesh.ServiceRef
	// ServiceName overrides destination_service_name: mesh.PassthroughCluster,
	// mesh.BlackHoleCluster or mesh.InboundPassthroughCluster. "" overrides nothing.
	ServiceName string
	// HostFallback is destination_service of an outbound edge while Service is
	// zero: the Host header or the SNI. Its distinct values are bounded
	// (Options.MaxHosts).
	HostFallback string
	// SourcePrincipal and DestinationPrincipal are the SPIFFE URIs of the two
	// ends when the connection is mutual TLS; "" otherwise.
	SourcePrincipal, DestinationPrincipal string
}

// Edge holds the series of one EdgeKey. It stays valid for ever: after its
// series were evicted, the next observation makes new ones.
type Edge struct {
	// Read-only after Recorder.Edge.
	r        *Recorder
	id       string // common labels and policy: equal for equal label sets
	common   string // the first 20 labels, rendered
	policy   string // connection_security_policy
	service  string // destination_service
	fallback string // HostFallback that this edge occupies; "" if none

	// Copied on write under r.mu.
	requests atomic.Pointer[map[requestKey]*requestSeries]
	tcp      atomic.Pointer[map[Flags]*tcpSeries]
	messages atomic.Pointer[messageSeries]

	// Guarded by r.mu.
	emptySince int64 // Now() when it was seen without series; 0 while it has some
}

// Edge finds or makes the edge of k. Keys that lead to equal labels give the
// same Edge, so a new configuration with the same workloads continues the same
// series. It renders labels and takes a lock: callers keep the result.
func (r *Recorder) Edge(k EdgeKey) *Edge {
	r.mu.Lock()
	defer r.mu.Unlock()
	k.HostFallback = r.boundHost(&k)
	l := r.labelsOf(&k)
	id := l.id()
	if e := r.edges[id]; e != nil {
		return e
	}
	e := &Edge{
		r: r, id: id, common: l.common(), policy: l.policy,
		service: l.value(destinationService), fallback: k.HostFallback,
	}
	e.requests.Store(&map[requestKey]*requestSeries{})
	e.tcp.Store(&map[Flags]*tcpSeries{})
	r.register(e)
	return e
}

// register makes e the edge of its id. The caller holds r.mu.
func (r *Recorder) register(e *Edge) {
	e.emptySince = Now()
	r.edges[e.id] = e
	if e.fallback != "" {
		r.hosts[e.fallback]++
	}
}

// forget removes e. The caller holds r.mu.
func (r *Recorder) forget(e *Edge) {
	delete(r.edges, e.id)
	if e.fallback == "" {
		return
	}
	if r.hosts[e.fallback]--; r.hosts[e.fallback] == 0 {
		delete(r.hosts, e.fallback)
	}
}

// current is the registered edge with the labels of e: e itself, unless e was
// forgotten and another one has been made since. The caller holds r.mu.
func (r *Recorder) current(e *Edge) *Edge {
	if c := r.edges[e.id]; c != nil {
		return c
	}
	r.register(e)
	return e
}

// otherHost stands for all hosts beyond Options.MaxHosts.
const otherHost = "other"

// boundHost decides which value HostFallback becomes. The caller holds r.mu.
func (r *Recorder) boundHost(k *EdgeKey) string {
	if r.o.Gateway || k.Direction == mesh.Inbound || !k.Service.IsZero() || k.HostFallback == "" {
		return ""
	}
	host := k.HostFallback
	if len(host) > maxHostLen {
		host = host[:maxHostLen]
	}
	if r.hosts[host] > 0 || host == otherHost {
		return host
	}
	if len(r.hosts) >= r.o.MaxHosts {
		r.self.hostsCollapsed.Add(1)
		return otherHost
	}
	return host
}

// maxHostLen is the longest domain name and a port.
const maxHostLen = 253 + 6
