package telemetry

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// ConnRecord is the account of one opaque TCP connection. It is reported while
// the connection lives: opened at the first report after its edge is known,
// bytes at each report, closed at the end.
//
// As in Istio, response_flags are those known at the first report: a
// connection that lives longer than the report interval stays in the series in
// which it was opened, so that opened minus closed is the number open.
type ConnRecord struct {
	// ConnFields are for the log. They are set by the owner before Finish.
	ConnFields

	r             *Recorder
	direction     mesh.Direction
	start         int64
	sent          atomic.Uint64
	received      atomic.Uint64
	finished      atomic.Bool
	mu            sync.Mutex // guards what follows
	edge          *Edge
	opened        bool
	flags         Flags
	sentCounted   uint64
	recvCounted   uint64
	reportedClose bool
}

// ConnFields describe a connection in the log.
type ConnFields struct {
	Detail          string
	SNI             string
	Cluster         string
	FailureReason   string
	Upstream        netip.AddrPort
	UpstreamLocal   netip.AddrPort
	Downstream      netip.AddrPort
	DownstreamLocal netip.AddrPort
}

// BeginConn starts the account of a connection. e may be nil until SetEdge.
func (r *Recorder) BeginConn(d mesh.Direction, e *Edge) *ConnRecord {
	c := &ConnRecord{r: r, direction: d, start: Now(), edge: e}
	r.self.openConns[d&1].Add(1)
	r.live.addConn(c)
	return c
}

// SetEdge says where the connection goes. It has an effect until the
// connection is first reported.
func (c *ConnRecord) SetEdge(e *Edge) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.opened {
		c.edge = e
	}
}

// AddSent counts bytes written to the client (the response direction).
func (c *ConnRecord) AddSent(n uint64) { c.sent.Add(n) }

// AddReceived counts bytes read from the client.
func (c *ConnRecord) AddReceived(n uint64) { c.received.Add(n) }

// Finish ends the account exactly once; a second call only counts itself.
func (c *ConnRecord) Finish(f Flags) {
	r := c.r
	if !c.finished.CompareAndSwap(false, true) {
		r.self.doubleFinish.Add(1)
		return
	}
	r.self.openConns[c.direction&1].Add(-1)
	r.live.removeConn(c)
	c.mu.Lock()
	if c.edge == nil {
		r.self.unattributed.Add(1)
		c.edge = r.unknown[c.direction&1]
	}
	c.report(f, true)
	e := c.edge
	c.mu.Unlock()

	a := r.account()
	a.Fields = Fields{
		Edge: e, Start: c.start, End: Now(), GRPCStatus: -1, Flags: f, Detail: c.Detail,
		BytesReceived: c.received.Load(), BytesSent: c.sent.Load(), SNI: c.SNI, Cluster: c.Cluster,
		FailureReason: c.FailureReason, Upstream: c.Upstream, UpstreamLocal: c.UpstreamLocal,
		Downstream: c.Downstream, DownstreamLocal: c.DownstreamLocal,
	}
	a.direction, a.connType = c.direction, true
	a.gen.Add(1)
	r.log.add(a)
}

// report counts what happened since the last report. The caller holds c.mu.
func (c *ConnRecord) report(f Flags, end bool) {
	if c.edge == nil || c.reportedClose {
		return
	}
	if !c.opened {
		c.flags = f
	}
	s := c.edge.enterTCP(c.flags)
	if !c.opened {
		c.opened = true
		s.opened.Add(1)
	}
	sent, received := c.sent.Load(), c.received.Load()
	s.sent.Add(sent - c.sentCounted)
	s.received.Add(received - c.recvCounted)
	c.r.self.relayed.Add(sent - c.sentCounted + received - c.recvCounted)
	c.sentCounted, c.recvCounted = sent, received
	if end {
		c.reportedClose = true
		s.closed.Add(1)
	}
}
