package proxy

import (
	"context"
	"errors"
	"net"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

// serveTCP forwards an opaque connection to c.target.cluster and accounts for
// it. The bytes read so far are in c.in.
func (c *conn) serveTCP(ctx context.Context) {
	if c.target.protocol == mesh.ProtocolTLS {
		c.serveUnknown(ctx) // for the server name
		return
	}
	c.forward(ctx, nil, "")
}

// forward forwards an opaque connection. first is the upstream connection that
// detection has opened already, or nil. sni is the server name that the client
// asked for; for destinations without a service it stands for the host.
func (c *conn) forward(ctx context.Context, first *early, sni string) {
	c.watch.set(phaseOpaque, telemetry.Now())
	c.watch.opaque.Store(true)
	defer c.watch.up.Store(nil)
	rec := c.p.o.Recorder.BeginConn(c.dir, nil)
	rec.SNI, rec.Downstream, rec.DownstreamLocal = sni, c.source, c.local

	if c.target.cluster == nil {
		first.discard()
		rec.SetEdge(c.unrouted([]byte(sni)).edge)
		rec.Detail = failNoRoute.detail
		c.reset()
		rec.Finish(failNoRoute.flags)
		return
	}
	if first == nil {
		first = &early{dest: c.choose(c.target.cluster, nil)}
		c.reach(ctx, first)
	}
	defer first.discard()
	dest := first.dest
	if sni != "" { // the edge of the early connection did not know the host
		dest.edge = c.edgeOf(&dest, sni)
	}
	rec.SetEdge(dest.edge)
	rec.Cluster = dest.cluster.Name
	switch {
	case dest.endpoint == nil:
		rec.Detail = failNoHealthy.detail
		c.reset()
		rec.Finish(failNoHealthy.flags)
		return
	case first.err != nil:
		rec.Upstream, rec.Detail, rec.FailureReason = dest.endpoint.Addr(), failConnect.detail, first.err.Error()
		c.reset()
		rec.Finish(failConnect.flags)
		return
	}
	rec.Upstream, rec.UpstreamLocal = dest.endpoint.Addr(), first.conn.Local()
	dest.endpoint.Enter()
	defer dest.endpoint.Leave()
	c.watch.up.Store(first.conn)
	c.relay(ctx, first.conn.NetConn(), first.in.Bytes(), func(sent, received uint64) {
		rec.AddSent(sent)
		rec.AddReceived(received)
	})
	rec.Finish(0)
}

// edgeOf is the series of an opaque connection whose host became known after
// its destination was chosen.
func (c *conn) edgeOf(d *destination, host string) *telemetry.Edge {
	if !d.cluster.Service.IsZero() || c.edgeIn != nil {
		return d.edge
	}
	return c.metEdge(d.cluster, []byte(host))
}

// reset makes the client see a reset connection when it is closed: what it
// would see if nobody listened at the destination.
func (c *conn) reset() { resetOnClose(c.nc) }

// resetOnClose makes Close send a reset instead of an orderly end.
func resetOnClose(nc net.Conn) {
	if tcp, ok := nc.(interface{ SetLinger(sec int) error }); ok {
		_ = tcp.SetLinger(0) // fails only on a closed socket
	}
}

// early is the connection to the TCP destination of a client connection, with
// what the server has said unasked.
type early struct {
	dest destination
	conn *upstream.Conn  // nil if there is no endpoint or it was not reached
	err  error           // why it was not reached
	in   upstream.Buffer // first bytes from the server
}

// reach connects to the destination of e, or to another endpoint of it if the
// one chosen cannot be connected to.
func (c *conn) reach(ctx context.Context, e *early) {
	if e.dest.endpoint == nil {
		e.err = errNoEndpoint
		return
	}
	e.conn, e.err = e.dest.dial(ctx)
	for retries := 0; e.err != nil && retries < connectRetries && c.other(ctx, &e.dest, e.err); retries++ {
		e.conn, e.err = e.dest.dial(ctx)
	}
}

var errNoEndpoint = errors.New("the cluster has no healthy endpoint")

// discard closes the connection for good; nil is nothing to discard.
func (e *early) discard() {
	if e == nil {
		return
	}
	if e.conn != nil {
		e.conn.Discard()
		e.conn = nil
	}
	e.in.Release()
}
