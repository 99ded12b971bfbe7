package graph

import (
	"context"
	"fmt"
	"time"
)

// Querier evaluates PromQL.
type Querier interface {
	// Query evaluates expr at one time. Its value must be a vector or a
	// scalar; the result is the caller's. It may be called by several
	// goroutines.
	Query(ctx context.Context, expr string, at time.Time) ([]Sample, error)
}

// Sample is one value of a vector.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// Options say which graph to build.
type Options struct {
	Window time.Duration // 1 min if 0; at least 1 s
	At     time.Time     // end of the window; now if zero
	// Namespace keeps only edges that touch it; "" keeps all.
	Namespace string
	// Extrapolate asks with plain increase(), for servers without the anchored
	// modifier. Counts are then estimates and need not be whole.
	Extrapolate bool
}

// Graph is the traffic of one window.
type Graph struct {
	At            time.Time `json:"at"` // end of the window
	WindowSeconds float64   `json:"windowSeconds"`
	// EffectiveSeconds is what rates were divided by: the window; the age of the
	// mesh if it is younger; or the time between two scrapes if nothing was scraped
	// when the window began.
	EffectiveSeconds float64 `json:"effectiveSeconds"`
	Namespace        string  `json:"namespace,omitempty"` // that it was narrowed to
	Nodes            []Node  `json:"nodes"`               // sorted by ID; each has an edge
	Edges            []Edge  `json:"edges"`               // sorted by source, destination, service, protocol
}

// Kind is what a node stands for.
type Kind string

// Kinds of nodes.
const (
	KindWorkload Kind = "workload"
	// KindService is a service none of whose workloads got the requests: they
	// failed before, or the workload is not known.
	KindService Kind = "service"
	// KindUnknown is traffic from or to something outside the mesh.
	KindUnknown Kind = "unknown"
	// KindPassthrough is a destination that no service of the mesh describes
	// (Istio's PassthroughCluster and BlackHoleCluster).
	KindPassthrough Kind = "passthrough"
)

// Health sums up an error share.
type Health string

// Health of nodes and edges.
const (
	HealthNone     Health = "none" // no requests to judge by (TCP)
	HealthHealthy  Health = "healthy"
	HealthDegraded Health = "degraded" // error share of at least DegradedShare
	HealthFailure  Health = "failure"  // error share of at least FailureShare
)

// Thresholds of Health, as Kiali colours the edges of its graph.
const (
	DegradedShare = 0.001
	FailureShare  = 0.20
)

// Node is one party.
type Node struct {
	ID        string `json:"id"` // stable: kind/namespace/name[@version]
	Kind      Kind   `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Workload  string `json:"workload,omitempty"`
	App       string `json:"app,omitempty"`
	Version   string `json:"version,omitempty"`
	// Service is the host of a service or passthrough node.
	Service  string  `json:"service,omitempty"`
	Incoming Traffic `json:"incoming"`
	Outgoing Traffic `json:"outgoing"`
	Health   Health  `json:"health"`
}

// Traffic is the sum of all edges into or out of a node.
type Traffic struct {
	RequestsPerSecond float64 `json:"requestsPerSecond"`
	ErrorShare        float64 `json:"errorShare"` // of requests, 0 … 1
	BytesPerSecond    float64 `json:"bytesPerSecond"`
}

// Protocol of an edge, as the label request_protocol has it.
type Protocol string

// Protocols.
const (
	ProtocolHTTP Protocol = "http"
	ProtocolGRPC Protocol = "grpc"
	ProtocolTCP  Protocol = "tcp"
)

// Edge is the traffic from one node to another, by service and protocol.
type Edge struct {
	Source      string `json:"source"`      // Node.ID
	Destination string `json:"destination"` // Node.ID
	// Service is the host the source called; "" if not known.
	Service  string   `json:"service,omitempty"`
	Protocol Protocol `json:"protocol"`

	Requests          float64 `json:"requests"` // ended in the window
	RequestsPerSecond float64 `json:"requestsPerSecond"`
	ErrorShare        float64 `json:"errorShare"` // of requests, 0 … 1
	// Codes and Flags split the requests; sorted by code and flags. "-" stands
	// for no flag, as in the metrics.
	Codes []CodeCount `json:"codes,omitempty"`
	Flags []FlagCount `json:"flags,omitempty"`
	// Latency is nil without finished requests.
	Latency *Latency `json:"latency,omitempty"`

	// Bytes sent by the source, and received by it, as its own proxy counts them,
	// for as many requests as there were; the destination's if the source has none.
	BytesSentPerSecond     float64 `json:"bytesSentPerSecond"`
	BytesReceivedPerSecond float64 `json:"bytesReceivedPerSecond"`
	// Messages of gRPC streams, sent and received by the source.
	MessagesSentPerSecond     float64 `json:"messagesSentPerSecond,omitempty"`
	MessagesReceivedPerSecond float64 `json:"messagesReceivedPerSecond,omitempty"`
	ConnectionsOpened         float64 `json:"connectionsOpened,omitempty"` // TCP, in the window

	// MTLSShare is the share of requests (of bytes for TCP, of connections if
	// no bytes moved) over mutual TLS. Nil if the destination has no proxy,
	// since only that knows.
	MTLSShare *float64 `json:"mtlsShare,omitempty"`
	Health    Health   `json:"health"`
}

// CodeCount is the number of requests with a code.
type CodeCount struct {
	Code       string  `json:"code"` // HTTP status; "0" without a response
	GRPCStatus string  `json:"grpcStatus,omitempty"`
	Requests   float64 `json:"requests"`
}

// FlagCount is the number of requests with a set of response flags.
type FlagCount struct {
	Flags    string  `json:"flags"`
	Requests float64 `json:"requests"`
}

// Latency are quantiles of request durations in milliseconds, interpolated
// within histogram buckets as histogram_quantile() does.
type Latency struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// Build asks q for the traffic of the window and makes the graph of it.
func Build(ctx context.Context, q Querier, o Options) (*Graph, error) {
	if o.Window == 0 {
		o.Window = time.Minute
	}
	if o.Window < time.Second {
		return nil, fmt.Errorf("build graph: window %v: must be at least 1s", o.Window)
	}
	if o.At.IsZero() {
		o.At = time.Now()
	}
	o.Window = o.Window.Truncate(time.Millisecond)
	tallies := tallies{}
	if err := tallies.load(ctx, q, o); err != nil {
		return nil, fmt.Errorf("build graph: %w", err)
	}
	effective, err := effectiveWindow(ctx, q, o)
	if err != nil {
		return nil, fmt.Errorf("build graph: %w", err)
	}
	tallies.unifyVersions()
	g := &Graph{At: o.At.UTC(), WindowSeconds: o.Window.Seconds(), EffectiveSeconds: effective.Seconds(), Namespace: o.Namespace}
	g.assemble(tallies.merge(), o.Namespace)
	return g, nil
}
