package upstream

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// DialFunc opens a connection to one fixed destination.
type DialFunc func(ctx context.Context) (net.Conn, error)

// Limits bound the idle connections of one endpoint.
type Limits struct {
	// MaxIdle is how many idle connections are kept; more are closed.
	MaxIdle int
	// IdleTimeout is how long a connection is kept unused. It must be shorter
	// than the server's own, or requests meet connections about to close.
	IdleTimeout time.Duration
}

// staleCheckAfter is the idle time from which Get looks at a connection before it
// hands it out, for whom it may have ended. A look costs one system call; within this
// time after a complete response it is left out, unless the response had no body: some
// servers send one all the same, and it is no answer to the next request (Doubt).
const staleCheckAfter = 10 * time.Millisecond

// Endpoint is one address with the connections to it.
type Endpoint struct {
	// Read-only after NewEndpoint.
	addr   netip.AddrPort
	dial   DialFunc
	limits Limits

	active   atomic.Int64
	requests atomic.Uint64
	conns    atomic.Int64
	opened   atomic.Uint64

	refused, failed, timedOut, abandoned atomic.Uint64

	mu     sync.Mutex // guards all below
	idle   []*Conn    // the last is the most recently used
	reaped int        // the idle connections that Reap looks at next begin here
	shared io.Closer
	closed bool
}

// NewEndpoint makes an endpoint without connections. addr only names it; dial
// decides where connections go.
func NewEndpoint(addr netip.AddrPort, dial DialFunc, limits Limits) *Endpoint {
	return &Endpoint{addr: addr, dial: dial, limits: limits}
}

// Addr is the address given to NewEndpoint.
func (e *Endpoint) Addr() netip.AddrPort { return e.addr }

// Enter counts a request in flight, for balancing; Leave ends it.
func (e *Endpoint) Enter() {
	e.active.Add(1)
	e.requests.Add(1)
}

// Leave ends what Enter began.
func (e *Endpoint) Leave() { e.active.Add(-1) }

// Failed says that the request in flight got no response, or one of the 500s;
// timedOut that it took too long.
func (e *Endpoint) Failed(timedOut bool) {
	e.failed.Add(1)
	if timedOut {
		e.timedOut.Add(1)
	}
}

// Abandoned says that the client of the request in flight went, or broke a rule,
// before there was a response.
func (e *Endpoint) Abandoned() { e.abandoned.Add(1) }

// Active is the number of requests (or opaque connections) in flight.
func (e *Endpoint) Active() int64 { return e.active.Load() }

// Counts are the figures of one endpoint for the admin pages.
type Counts struct {
	ActiveRequests, TotalRequests      uint64
	ActiveConnections, TotalConnection uint64
	IdleConnections                    int
	ConnectFailures                    uint64
	// What became of requests: with the abandoned and the active ones they are
	// all. Timeouts are among the failed.
	Succeeded, FailedRequests, Timeouts uint64
}

// Counts reads the figures; they are each exact, but not of one instant.
func (e *Endpoint) Counts() Counts {
	e.mu.Lock()
	idle := len(e.idle)
	e.mu.Unlock()
	// The total is read last: what ends meanwhile does not make it too small.
	failed, others, active := e.failed.Load(), e.abandoned.Load(), uint64(max(e.active.Load(), 0))
	total := e.requests.Load()
	return Counts{
		ActiveRequests: active, TotalRequests: total,
		Succeeded: total - min(total, failed+others+active), FailedRequests: failed, Timeouts: e.timedOut.Load(),
		ConnectFailures:   e.refused.Load(),
		ActiveConnections: uint64(max(e.conns.Load(), 0)), TotalConnection: e.opened.Load(),
		IdleConnections: idle,
	}
}

// Get takes the most recently used idle connection, or returns nil. now is
// monotonic nanoseconds, from the same clock as Put. Connections that ended
// while idle are closed here. One that ended a moment ago may be returned unless
// sound is set: by who cannot send again what was lost on it.
func (e *Endpoint) Get(now int64, sound bool) *Conn {
	for {
		e.mu.Lock()
		n := len(e.idle)
		if n == 0 {
			e.mu.Unlock()
			return nil
		}
		c := e.idle[n-1]
		e.idle[n-1] = nil
		e.idle = e.idle[:n-1]
		e.mu.Unlock()
		if (sound || c.doubted || now-c.idleSince >= int64(staleCheckAfter)) && !c.Untouched() {
			c.Discard()
			continue
		}
		c.reused = true
		return c
	}
}

// Dial opens a new connection, of a closed endpoint too: a request may have
// chosen it before it left the mesh, and its server goes on for a while so that
// such requests are served.
func (e *Endpoint) Dial(ctx context.Context) (*Conn, error) {
	nc, err := e.dial(ctx)
	if err != nil {
		e.refused.Add(1)
		return nil, fmt.Errorf("connect to %s: %w", e.addr, err)
	}
	c := &Conn{endpoint: e, local: LocalAddr(nc)}
	c.Init(nc)
	e.conns.Add(1)
	e.opened.Add(1)
	return c, nil
}

// Put gives back a connection on which the next request may be written. It is
// closed when the pool is full or the endpoint has left.
func (e *Endpoint) Put(c *Conn, now int64) {
	c.idleSince = now
	e.mu.Lock()
	if e.closed || len(e.idle) >= e.limits.MaxIdle {
		e.mu.Unlock()
		c.Discard()
		return
	}
	e.idle = append(e.idle, c)
	e.mu.Unlock()
}

// Shared returns the one multiplexed session of the endpoint, which open makes
// on first use. It is closed with the endpoint.
func (e *Endpoint) Shared(open func() io.Closer) io.Closer {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.shared == nil {
		e.shared = open()
		if e.closed {
			e.shared.Close()
		}
	}
	return e.shared
}

// reapProbes is how many idle connections one Reap looks at: each costs a system
// call under the lock that requests need, too.
const reapProbes = 16

// Reap closes the idle connections that were unused for the idle timeout, and
// those that it finds ended: it looks at some, and goes on with the next ones when
// it is called again. It returns how many connections are left, idle or busy.
func (e *Endpoint) Reap(now int64) int {
	var dead []*Conn
	e.mu.Lock()
	if e.reaped >= len(e.idle) {
		e.reaped = 0
	}
	first, next := e.reaped, 0
	keep := e.idle[:0]
	for i, c := range e.idle {
		looked := i >= first && i < first+reapProbes
		if now-c.idleSince >= int64(e.limits.IdleTimeout) || looked && !c.Untouched() {
			dead = append(dead, c)
		} else {
			keep = append(keep, c)
		}
		if looked {
			next = len(keep)
		}
	}
	e.reaped = next
	clear(e.idle[len(keep):])
	e.idle = keep
	e.mu.Unlock()
	for _, c := range dead {
		c.Discard()
	}
	return int(e.conns.Load())
}

// Close takes the endpoint out of use: idle connections are closed now, busy
// and later ones when they are put back.
func (e *Endpoint) Close() {
	e.mu.Lock()
	idle, shared := e.idle, e.shared
	e.idle, e.closed = nil, true
	e.mu.Unlock()
	for _, c := range idle {
		c.Discard()
	}
	if shared != nil {
		shared.Close()
	}
}

// Conn is a connection to an endpoint, lent to one request at a time.
type Conn struct {
	Stream
	endpoint  *Endpoint
	local     netip.AddrPort
	idleSince int64
	reused    bool
	doubted   bool
	discarded bool
}

// Doubt says whether the server may have more to send that nobody asked for: then the
// connection is looked at whenever it is used again.
func (c *Conn) Doubt(it bool) { c.doubted = it }

// Local is our end of the connection; invalid if it has no such address.
func (c *Conn) Local() netip.AddrPort { return c.local }

// LocalAddr is our end of a TCP connection; invalid for any other one.
func LocalAddr(c net.Conn) netip.AddrPort {
	tcp, ok := c.LocalAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	a := tcp.AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Reused reports whether the connection had carried a request before: a
// failure before the first byte of the answer may then mean only that the
// server closed it while it was idle.
func (c *Conn) Reused() bool { return c.reused }

// Discard closes the connection for good and forgets it. Only its user may
// call it; a second call does nothing.
func (c *Conn) Discard() {
	if c.discarded {
		return
	}
	c.discarded = true
	_ = c.Close() // it is of no more use, whatever close says
	c.endpoint.conns.Add(-1)
}
