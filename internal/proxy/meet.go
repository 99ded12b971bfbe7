package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

// met is the endpoint of a destination that no member list names: the program
// itself, an original destination, a workload's own address.
type met struct {
	endpoint *upstream.Endpoint // nil until first used
	key      upstream.SourceKey
}

// meet finds the endpoint of the connection's own destination.
func (c *conn) meet(cl *cluster) *upstream.Endpoint {
	if c.met.endpoint != nil {
		return c.met.endpoint
	}
	p := c.p
	var dial upstream.DialFunc
	key := upstream.SourceKey{Target: netip.AddrPortFrom(c.local.Addr().Unmap(), c.local.Port())}
	limits := p.programLimits()
	switch {
	case cl.Type == mesh.ClusterLocal:
		// A program sees the address of who opened the connection: connections
		// are shared only among requests of one client address.
		key = upstream.SourceKey{Source: c.programSource(), Target: netip.AddrPortFrom(loopback(), cl.Port)}
		dial = p.dialProgram(key.Source, netip.AddrPortFrom(netip.Addr{}, cl.Port))
	case c.dir == mesh.Inbound:
		// What nobody declared is reached where the program opens it to others.
		key.Source = c.programSource()
		dial = p.dialProgram(key.Source, key.Target)
	case c.target.direct != nil:
		limits = p.peerLimits()
		if wire, ok := c.target.direct.WirePortOf(cl.Port); ok {
			key.Target, dial = wire, p.dialPeer(wire)
		} else {
			key.Target = caseAddress(c.target.direct, key.Target)
			key.Via = netip.AddrPortFrom(c.target.direct.IP, mesh.PortInbound)
			dial = p.dialUndeclared(key.Via, key.Target)
		}
	case c.localhost:
		dial = p.dialHost(key.Target)
	default:
		dial = p.dialPeer(key.Target)
	}
	c.met = met{key: key, endpoint: p.sources.Acquire(key, func() *upstream.Endpoint {
		return upstream.NewEndpoint(key.Target, dial, limits)
	})}
	return c.met.endpoint
}

// dialHost connects to a loopback address of the host. The name localhost stands
// for 127.0.0.1 and ::1, and a program goes to the second when the first
// refuses; here the kernel accepted in the host's place, so we do that.
func (p *Proxy) dialHost(addr netip.AddrPort) upstream.DialFunc {
	first := p.dialPeer(addr)
	other := netip.IPv6Loopback()
	switch addr.Addr() {
	case loopback():
	case other:
		other = loopback()
	default:
		return first
	}
	second := p.dialPeer(netip.AddrPortFrom(other, addr.Port()))
	return func(ctx context.Context) (net.Conn, error) {
		nc, err := first(ctx)
		if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return nc, err
		}
		if nc, again := second(ctx); again == nil {
			return nc, nil
		}
		return nil, err
	}
}

// programSource is the client address that the program shall see.
func (c *conn) programSource() netip.Addr {
	if c.peer != nil {
		if c.local.Addr().Is6() && c.peer.CaseIP6.IsValid() {
			return c.peer.CaseIP6
		}
		return c.peer.CaseIP
	}
	return c.source.Addr()
}

// caseAddress is called if that is an address of w in its case, otherwise the port
// at the first of these.
func caseAddress(w *mesh.Workload, called netip.AddrPort) netip.AddrPort {
	if called.Addr() == w.CaseIP || called.Addr() == w.CaseIP6 {
		return called
	}
	return netip.AddrPortFrom(w.CaseIP, called.Port())
}

func (p *Proxy) dialProgram(source netip.Addr, target netip.AddrPort) upstream.DialFunc {
	if p.o.DialProgram != nil {
		return func(ctx context.Context) (net.Conn, error) { return p.o.DialProgram(ctx, source, target) }
	}
	if !target.Addr().IsValid() {
		target = netip.AddrPortFrom(loopback(), target.Port())
	}
	return p.dialPeer(target)
}

// forget gives back the met endpoint.
func (c *conn) forget() {
	if c.met.endpoint != nil {
		c.p.sources.Release(c.met.key)
		c.met = met{}
	}
}

func loopback() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 1}) }
