package ads

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// ServerOptions configure a Server.
type ServerOptions struct {
	// Config computes the configuration of the proxy with the given node id
	// from the newest Snapshot. An error means that it has none yet: the proxy
	// stays connected and is asked for again after Notify. It is called from
	// several goroutines at once, and its result is not changed.
	Config func(nodeID string) (*mesh.NodeConfig, error)
	// StuckAfter is how long a proxy may leave a response unanswered; 0 means 60 s.
	StuckAfter time.Duration
	// Version is the version label of pilot_xds; "" means unknown.
	Version string
	Log     *slog.Logger // required
}

// Server serves ADS to any number of proxies.
type Server struct{ opts ServerOptions }

// NewServer makes a Server; Serve starts it.
func NewServer(o ServerOptions) (*Server, error) { return &Server{opts: o}, nil }

// Serve accepts proxies on ln until ctx ends, then closes ln and all streams
// and returns nil.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error { return errors.New("not there yet") }

// Notify tells the server that a newer Snapshot exists. It never blocks.
func (s *Server) Notify() {}

// ProxyStatus is what the server knows of one connected proxy.
type ProxyStatus struct {
	Node      string // node id
	Connected time.Time
	Delta     bool         // incremental protocol
	Types     []TypeStatus // sorted by type URL
}

// TypeStatus is the state of one resource type of a proxy.
type TypeStatus struct {
	Type      string // short name: cds, eds, lds, rds, wds, nds
	TypeURL   string
	Sent      string    // version last sent
	Acked     string    // version last accepted
	Nonce     string    // of the last response
	LastError string    // what the proxy said when it refused a response; "" after the next accepted one
	ErrorAt   time.Time // zero without LastError
	Resources int       // how many the proxy has
}

// InSync reports whether the proxy accepted all that was sent.
func (t *TypeStatus) InSync() bool { return t.Sent == t.Acked && t.LastError == "" }

// Status lists the connected proxies, sorted by node id.
func (s *Server) Status() []ProxyStatus { return nil }

// WriteMetrics writes the server's metrics in the Prometheus text format.
func (s *Server) WriteMetrics(w io.Writer) error { return nil }
