package ads

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/xds"
	"github.com/vitrine-mesh/vitrine/internal/xds/envoy"
)

const (
	defaultStuckAfter = 60 * time.Second
	// maxRequestBytes bounds a request; the largest names every resource that
	// a proxy has after a reconnection.
	maxRequestBytes = 64 << 20
	// minPing is how often a client may ask whether the server is still there.
	minPing = 5 * time.Second
)

// ServerOptions configure a Server.
type ServerOptions struct {
	// Config computes the configuration of the proxy with the given node id
	// from the newest Snapshot. An error means that it has none yet: the proxy
	// stays connected and is asked for again after Notify. It is called from
	// several goroutines at once, and its result is never changed.
	Config func(nodeID string) (*mesh.NodeConfig, error)
	// StuckAfter is how long a proxy may leave a response unanswered; 0 means 60 s.
	StuckAfter time.Duration
	// Version is the version label of pilot_xds; "" means unknown.
	Version string
	Log     *slog.Logger // required
}

// Server serves ADS to any number of proxies.
type Server struct {
	opts    ServerOptions  // read-only
	encoder *xds.Encoder   // read-only
	metrics *serverMetrics // read-only

	mu       sync.Mutex
	proxies  map[*proxy]struct{} // guarded by mu
	notified time.Time           // of the last Notify; guarded by mu
	faults   map[*proxy]string   // why the newest configuration of a proxy cannot be told; guarded by mu
	progress chan struct{}       // closed and replaced when a proxy is up to date or gone; guarded by mu
}

// NewServer makes a Server; Serve starts it.
func NewServer(o ServerOptions) (*Server, error) {
	if o.Config == nil || o.Log == nil {
		return nil, errors.New("ads server needs a source of configuration and a logger")
	}
	if o.StuckAfter == 0 {
		o.StuckAfter = defaultStuckAfter
	}
	if o.Version == "" {
		o.Version = mesh.Unknown
	}
	s := &Server{
		opts: o, encoder: xds.NewEncoder(), proxies: map[*proxy]struct{}{}, faults: map[*proxy]string{}, notified: time.Now(),
		progress: make(chan struct{}),
	}
	s.metrics = newServerMetrics(o.Version, s.connected)
	return s, nil
}

// Serve accepts proxies on ln until ctx ends, then closes ln and all streams
// and returns nil.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	server := grpc.NewServer(
		grpc.ForceServerCodecV2(codec{}),
		grpc.MaxRecvMsgSize(maxRequestBytes),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
	)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: envoy.ADSService,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			{StreamName: envoy.MethodDelta, Handler: s.serveDelta, ServerStreams: true, ClientStreams: true},
			{StreamName: envoy.MethodStream, Handler: s.serveWorld, ServerStreams: true, ClientStreams: true},
		},
	}, s)
	stop := context.AfterFunc(ctx, server.Stop)
	defer server.Stop()
	defer stop()
	if err := server.Serve(ln); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve ads on %v: %w", ln.Addr(), err)
	}
	return nil
}

// Notify tells the server that a newer Snapshot exists. It never blocks.
func (s *Server) Notify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notified = time.Now()
	for p := range s.proxies {
		p.poke()
	}
}

func (s *Server) lastNotified() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.notified
}

func (s *Server) add(p *proxy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proxies[p] = struct{}{}
}

func (s *Server) remove(p *proxy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.proxies, p)
	delete(s.faults, p)
	s.progressed()
}

// progressed wakes Converged. s.mu is held.
func (s *Server) progressed() {
	close(s.progress)
	s.progress = make(chan struct{})
}

// fault notes why the newest configuration of p cannot be told, "" if it can. It
// is said once, however many proxies it stops.
func (s *Server) fault(p *proxy, cause string) {
	s.mu.Lock()
	known := cause == ""
	for _, other := range s.faults {
		known = known || other == cause
	}
	if cause == "" {
		delete(s.faults, p)
	} else {
		s.faults[p] = cause
	}
	s.mu.Unlock()
	if !known {
		s.opts.Log.Error("configuration cannot be told to proxies, they go on with the one before", "node", p.node, "error", cause)
	}
}

// ProxyStatus is what the server knows of one connected proxy.
type ProxyStatus struct {
	Node      string    // node id; "" before its first request
	Connected time.Time // since when
	Delta     bool      // incremental protocol
	// Current is the last Notify whose configuration the proxy has answered
	// wholly; zero before the first.
	Current time.Time
	// Told is the last Notify of whose configuration nothing more is to come: the proxy
	// has answered it wholly, or it cannot be told; zero before the first.
	Told time.Time
	// Fault is why the newest configuration cannot be told to the proxy at all; ""
	// if it can, or if there is none.
	Fault string
	Types []TypeStatus // what it subscribed to, in the order of pushes
}

// TypeStatus is the state of one resource type of a proxy.
type TypeStatus struct {
	Kind      xds.Kind
	Sent      string    // version last sent
	Acked     string    // version last accepted
	Nonce     string    // of the last response
	LastError string    // what the proxy said of resources it refused and did not accept or lose since; "" if there are none
	ErrorAt   time.Time // zero without LastError
	Resources int       // how many were sent to the proxy and not removed since
}

// InSync reports whether the proxy accepted all that was sent.
func (t *TypeStatus) InSync() bool { return t.Sent == t.Acked && t.LastError == "" }

// Status lists the connected proxies, sorted by node id.
func (s *Server) Status() []ProxyStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]ProxyStatus, 0, len(s.proxies))
	for p := range s.proxies {
		out = append(out, p.report())
	}
	slices.SortFunc(out, func(a, b ProxyStatus) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), a.Connected.Compare(b.Connected))
	})
	return out
}

// Converged returns when every connected proxy has answered for everything that
// was announced by the last Notify before the call: it has the configuration, or
// refused it, or there is none for it. One whose configuration cannot be told is
// behind. At the end of ctx it returns an error that
// names the proxies that are behind.
func (s *Server) Converged(ctx context.Context) error {
	at := s.lastNotified()
	for {
		s.mu.Lock()
		progress := s.progress
		s.mu.Unlock()
		var behind []string
		for _, p := range s.Status() {
			if p.Node != "" && p.Current.Before(at) { // without a name it has nothing yet
				behind = append(behind, p.Node)
			}
		}
		if len(behind) == 0 {
			return nil
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return fmt.Errorf("wait for proxies %s: %w", strings.Join(behind, ", "), ctx.Err())
		}
	}
}

// Waiting names the connected proxies of which answers are to come for what was
// announced by the last Notify. One whose configuration cannot be told is not among
// them, nor one that refused it.
func (s *Server) Waiting() []string {
	at := s.lastNotified()
	var out []string
	for _, p := range s.Status() {
		if p.Node != "" && p.Told.Before(at) {
			out = append(out, p.Node)
		}
	}
	return out
}

// Metrics are the metrics of pushes.
func (s *Server) Metrics() prometheus.Gatherer { return s.metrics.registry }

// connected is how many proxies have a stream now.
func (s *Server) connected() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.proxies)
}

// codec lets grpc carry the messages of package envoy.
type codec struct{}

var _ encoding.CodecV2 = codec{}

// Name is the content subtype; the bytes are protobuf's.
func (codec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(envoy.Message)
	if !ok {
		return nil, fmt.Errorf("cannot send a %T", v)
	}
	b, err := envoy.Marshal(m)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(envoy.Message)
	if !ok {
		return fmt.Errorf("cannot receive a %T", v)
	}
	return envoy.Unmarshal(data.Materialize(), m)
}
