package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

// Proxy is the data plane of one workload. The zero value is not usable.
type Proxy struct {
	o    Options // read-only after New
	snap atomic.Pointer[snapshot]

	sources     upstream.Sources // the program per client, and destinations outside the configuration
	serverFirst serverFirst      // see detection.go
	draining    [2]drainState    // by mesh.Direction

	applying sync.Mutex // one Apply, SetReady or unbinding at a time

	mu        sync.Mutex // guards what follows
	conns     map[*conn]struct{}
	listeners map[bindKey]*bound
	ready     bool
	retiring  int           // listeners that accept their last connections
	wake      chan struct{} // capacity 1: Run looks at listeners again

	forced atomic.Uint64
	total  [2]atomic.Uint64 // connections accepted, by direction
	open   [2]atomic.Int64  // connections open, by direction
	full   atomic.Bool      // inbound connections are being refused
}

// drainState is whether one direction drains, in a form to poll and one to wait for.
type drainState struct {
	on   atomic.Bool
	done chan struct{} // closed when draining begins
}

// New checks o and makes a proxy that does nothing until Apply and Run.
func New(o Options) (*Proxy, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	p := &Proxy{o: o, conns: map[*conn]struct{}{}, listeners: map[bindKey]*bound{}, wake: make(chan struct{}, 1)}
	for i := range p.draining {
		p.draining[i].done = make(chan struct{})
	}
	return p, nil
}

// Config is the configuration applied last; nil before the first Apply.
func (p *Proxy) Config() *mesh.NodeConfig {
	if s := p.snap.Load(); s != nil {
		return s.config
	}
	return nil
}

// Apply makes cfg the configuration of all requests that begin from now on.
// It compiles everything and binds new inbound listeners first: on an error
// nothing changes. Connections of endpoints that left are closed when idle.
// cfg must not be changed afterwards.
func (p *Proxy) Apply(cfg *mesh.NodeConfig) error {
	p.applying.Lock()
	defer p.applying.Unlock()
	prev := p.snap.Load()
	next, err := p.compile(cfg, prev)
	if err != nil {
		return fmt.Errorf("apply configuration: %w", err)
	}
	if err := p.rebind(next); err != nil {
		return fmt.Errorf("apply configuration: %w", err)
	}
	p.snap.Store(next)
	if prev != nil {
		close(prev.superseded)
		for name, old := range prev.clusters {
			var kept *upstream.Cluster
			if now := next.clusters[name]; now != nil {
				kept = now.Cluster
			}
			old.Retire(kept)
		}
	}
	p.nudge()
	return nil
}

// nudge makes Run look at the listeners.
func (p *Proxy) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Conn is an outbound connection as interception hands it over.
type Conn struct {
	net.Conn
	OrigDst   netip.AddrPort // where the program wanted to go
	Source    netip.AddrPort // the program's end
	Localhost bool           // it went to the program's loopback, where nobody listens: the host's is meant
}

// Listener hands over the program's outbound connections. Close makes a blocked
// Accept return.
type Listener interface {
	Accept() (Conn, error)
	Close() error
}

// ServeOutbound accepts from ln until ctx is done, which also ends what was
// accepted; then it returns nil. It closes ln.
func (p *Proxy) ServeOutbound(ctx context.Context, ln Listener) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() }) //nolint:errcheck // Accept reports the end
	defer stop()
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		in, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				break
			}
			if !temporary(err) {
				ln.Close() //nolint:errcheck // it has failed already
				return fmt.Errorf("accept outbound connections: %w", err)
			}
			p.o.Log.Warn("an outbound connection was not accepted", "error", err)
			continue
		}
		c := &conn{p: p, dir: mesh.Outbound, nc: in.Conn, local: in.OrigDst, source: in.Source, localhost: in.Localhost}
		p.start(ctx, &serving, c)
	}
	p.closeConns(mesh.Outbound)
	return nil
}

// Run serves the inbound listeners and keeps time limits until ctx is done;
// then it closes the
// inbound connections, waits for what it started and returns nil.
func (p *Proxy) Run(ctx context.Context) error {
	var wg, serving sync.WaitGroup
	wg.Go(func() { p.reap(ctx) })
	for ctx.Err() == nil {
		for _, b := range p.unserved() {
			wg.Go(func() { p.accept(ctx, &serving, b) })
		}
		select {
		case <-ctx.Done():
		case <-p.wake:
		}
	}
	p.unbind()
	wg.Wait() // nothing is accepted any more
	p.closeConns(mesh.Inbound)
	serving.Wait()
	p.sources.Close()
	if s := p.snap.Load(); s != nil {
		for _, c := range s.clusters {
			c.Retire(nil)
		}
	}
	return nil
}

// start registers c and serves it in a goroutine of its own.
func (p *Proxy) start(ctx context.Context, serving *sync.WaitGroup, c *conn) {
	c.init()
	p.mu.Lock()
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	p.total[c.dir].Add(1)
	p.open[c.dir].Add(1)
	serving.Go(func() {
		c.serve(ctx)
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
		p.open[c.dir].Add(-1)
	})
}

// connections lists the open connections of one direction.
func (p *Proxy) connections(d mesh.Direction) []*conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*conn
	for c := range p.conns {
		if c.dir == d {
			list = append(list, c)
		}
	}
	return list
}

// closeConns closes all connections of one direction by force and returns how
// many there were.
func (p *Proxy) closeConns(d mesh.Direction) int {
	list := p.connections(d)
	for _, c := range list {
		c.abort()
	}
	return len(list)
}

// peerLimits are the pool limits for other proxies.
func (p *Proxy) peerLimits() upstream.Limits {
	return upstream.Limits{MaxIdle: p.o.MaxIdlePerEndpoint, IdleTimeout: p.o.PeerIdleTimeout}
}

// programLimits are the pool limits for programs and the world outside.
func (p *Proxy) programLimits() upstream.Limits {
	return upstream.Limits{MaxIdle: p.o.MaxIdlePerEndpoint, IdleTimeout: p.o.ProgramIdleTimeout}
}

// dialPeer connects from this workload's mesh IP, by which the peer knows us,
// if addr is in the mesh.
func (p *Proxy) dialPeer(addr netip.AddrPort) upstream.DialFunc {
	var d net.Dialer
	var local netip.AddrPort
	if _, ok := mesh.IndexOf(p.o.Net, addr.Addr()); ok && p.o.Self.IP.IsValid() {
		local = netip.AddrPortFrom(p.o.Self.IP, 0)
		d.Control = portAtConnect
	}
	return func(ctx context.Context) (net.Conn, error) {
		// Not DialContext: what resolves names wants a deeper stack, which the
		// goroutine of the client's connection would then keep.
		c, err := d.DialTCP(ctx, "tcp", local, addr)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
}

// portAtConnect lets the kernel choose the source port when it knows the
// destination, so that one source address can hold more than 28,000
// connections.
func portAtConnect(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
	return errors.Join(err, failed)
}

// temporary reports whether accepting may go on after err.
func temporary(err error) bool {
	return errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.EPROTO)
}
