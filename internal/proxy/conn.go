package proxy

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/route"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

// conn is one connection from a client: the program for outbound, another
// proxy or anybody for inbound connections.
type conn struct {
	// Read-only after start.
	p         *Proxy
	dir       mesh.Direction
	nc        net.Conn
	bound     netip.AddrPort // inbound: the address of the listener
	source    netip.AddrPort // the client's end
	localhost bool
	down      upstream.Stream // reads and writes nc

	// Touched by the serving goroutine only.
	local  netip.AddrPort  // original destination; for inbound what was called: bound, or what a header names
	in     upstream.Buffer // read from the client, not yet used
	snap   *snapshot       // what target and peer come from
	target target
	peer   *mesh.Workload // inbound: who calls; nil unknown
	edgeIn *telemetry.Edge
	met    met // destination outside the clusters' member lists
	asked  route.Memo

	lastHost []byte // passthrough: authority that lastEdge belongs to
	lastEdge *telemetry.Edge

	// Shared with the reaper and Drain.
	watch watch
}

// target is where a connection goes, as far as its destination address says.
type target struct {
	protocol mesh.Protocol
	routes   *route.Config // nil: every request goes to cluster
	cluster  *cluster      // for what is not HTTP; nil if unreachable
	direct   *mesh.Workload
	header   bool // a PROXY protocol header comes first
}

// destination is the choice for one request or opaque connection.
type destination struct {
	cluster  *cluster           // nil if there was no route
	endpoint *upstream.Endpoint // nil if the cluster has none
	edge     *telemetry.Edge    // never nil
}

// dial opens a connection to the destination's endpoint within the cluster's
// connect timeout. Pooled connections are taken with endpoint.Get first.
func (d *destination) dial(ctx context.Context) (*upstream.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cluster.ConnectTimeout)
	defer cancel()
	return d.endpoint.Dial(ctx)
}

func (c *conn) init() {
	c.down.Init(c.nc)
	c.watch.set(phaseIdle, telemetry.Now())
}

// serve handles the connection to its end. It closes it and joins whatever it
// started.
func (c *conn) serve(ctx context.Context) {
	defer c.release()
	if !c.refresh() {
		return
	}
	if c.target.header && !c.readHeader() {
		return
	}
	c.acquaint(ctx)
	switch c.target.protocol {
	case mesh.ProtocolHTTP, mesh.ProtocolHTTP2, mesh.ProtocolGRPC:
		c.serveHTTP(ctx)
	case mesh.ProtocolAuto:
		c.serveUnknown(ctx)
	default:
		c.serveTCP(ctx)
	}
}

// acquaint waits for the configuration that names the caller, if there must be
// one soon: who is not known is counted as unknown. News of a workload reaches its
// own proxy and ours at nearly the same time, and a program that calls at once may
// be the first to arrive.
func (c *conn) acquaint(ctx context.Context) {
	if _, ours := mesh.IndexOf(c.p.o.Net, c.source.Addr()); !ours || c.dir != mesh.Inbound || c.peer != nil {
		return
	}
	timer := time.NewTimer(c.p.o.AcquaintTime)
	defer timer.Stop()
	for c.peer == nil {
		select {
		case <-c.snap.superseded:
			c.refresh()
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// release closes the connection and gives back what it holds.
func (c *conn) release() {
	c.nc.Close()
	c.in.Release()
	c.forget()
}

// abort closes the connection from outside.
func (c *conn) abort() {
	c.watch.forced.Store(true)
	c.nc.Close()
	if cancel := c.watch.giveUp.Load(); cancel != nil {
		(*cancel)()
	}
	if up := c.watch.up.Load(); up != nil {
		up.Interrupt()
	}
}

// refresh loads the newest configuration; every request calls it before it is
// routed. It reports false when there is none yet.
func (c *conn) refresh() bool {
	s := c.p.snap.Load()
	if s == c.snap {
		return s != nil
	}
	if s == nil {
		return false
	}
	c.snap = s
	c.forget()
	c.lastEdge = nil
	if c.dir == mesh.Inbound {
		c.resolveInbound()
	} else {
		c.resolveOutbound()
	}
	return true
}

func (c *conn) resolveInbound() {
	c.target = target{}
	for _, l := range c.snap.inbound {
		if l.Address == c.bound {
			c.target = target{protocol: l.Protocol, cluster: l.cluster, header: l.ProxyProtocol}
			break
		}
	}
	c.peer = c.snap.byIP[c.source.Addr()]
	key := telemetry.EdgeKey{Direction: mesh.Inbound, Peer: c.peer}
	if c.target.cluster != nil {
		key.Service = c.target.cluster.Service
		key.ServiceName = c.target.cluster.serviceName
	}
	c.edgeIn = c.p.o.Recorder.Edge(key)
}

// resolveOutbound finds the target of the original destination: the listener
// of exactly that address, then the workload that owns the address, then the
// listener of the port, then the catch-all.
func (c *conn) resolveOutbound() {
	s, dst := c.snap, netip.AddrPortFrom(c.local.Addr().Unmap(), c.local.Port())
	use := func(l *listener) { c.target = target{protocol: l.Protocol, routes: l.routes, cluster: l.cluster} }
	if !c.localhost {
		if l := s.exact[dst]; l != nil {
			use(l)
			return
		}
	}
	// The mesh IPs are loopback addresses of the host. What listens there beside
	// the wire ports is the proxies' own, admin included, and no program's business.
	if w := s.byIP[dst.Addr()]; w != nil {
		c.target = c.directTarget(w, dst.Port())
		return
	}
	// Addresses of workloads that are not there mean nothing outside the mesh: who
	// has them in some network of the host is not meant.
	if _, ours := mesh.IndexOf(c.p.o.Net, dst.Addr()); ours {
		c.target = target{protocol: mesh.ProtocolAuto, cluster: noWorkload()}
		return
	}
	if !c.localhost {
		if l := s.byPort[dst.Port()]; l != nil {
			use(l)
			if s.catchAll != nil && !mesh.IsServiceVIP(dst.Addr()) {
				// Somebody outside who happens to use the port number of a service:
				// what he speaks nobody has declared.
				c.target.protocol, c.target.cluster = mesh.ProtocolAuto, s.catchAll.cluster
			}
			return
		}
	}
	if s.catchAll != nil {
		use(s.catchAll)
		return
	}
	c.target = target{protocol: mesh.ProtocolTCP, cluster: blackHole()}
}

// noWorkload is the cluster of an address that no workload has.
func noWorkload() *cluster {
	return &cluster{
		Cluster:     &upstream.Cluster{Cluster: mesh.Cluster{Name: mesh.PassthroughCluster, Type: mesh.ClusterBlackHole}},
		serviceName: mesh.BlackHoleCluster,
	}
}

func blackHole() *cluster {
	return &cluster{
		Cluster:     &upstream.Cluster{Cluster: mesh.Cluster{Name: mesh.BlackHoleCluster, Type: mesh.ClusterBlackHole}},
		serviceName: mesh.BlackHoleCluster,
	}
}

// directTarget is a port of one workload, called by the workload's own address.
func (c *conn) directTarget(w *mesh.Workload, port uint16) target {
	cl := &cluster{Cluster: &upstream.Cluster{Cluster: mesh.Cluster{
		Name: mesh.PassthroughCluster, Type: mesh.ClusterOriginalDst, ConnectTimeout: c.p.o.ConnectTimeout, Port: port,
	}}}
	cl.serviceName = mesh.PassthroughCluster
	if wire, ok := w.WirePortOf(port); ok {
		if services := c.snap.servicesAt(c.local.Addr().Unmap(), wire); len(services) > 0 {
			cl.Service, cl.Also, cl.serviceName = services[0], services[1:], ""
		}
	}
	t := target{protocol: mesh.ProtocolAuto, cluster: cl, direct: w}
	for i := range w.Ports {
		if w.Ports[i].Port == port && w.Ports[i].Protocol != mesh.ProtocolUDP {
			t.protocol = w.Ports[i].Protocol
		}
	}
	return t
}

// choose picks the endpoint of cl for a request or connection and the series
// it counts in. authority may be nil for what is not HTTP. What goes to its
// original destination though that is a virtual IP, which means nothing outside
// the mesh, goes to the service behind it: many programs call a service with
// another Host than its name, as reverse proxies do that pass on their client's.
// A port that the service does not have is refused.
func (c *conn) choose(cl *cluster, authority []byte) destination {
	if cl.Type == mesh.ClusterOriginalDst && c.dir == mesh.Outbound && c.target.direct == nil && mesh.IsServiceVIP(c.local.Addr()) {
		if cl = c.snap.byVIP[netip.AddrPortFrom(c.local.Addr().Unmap(), c.local.Port())]; cl == nil {
			cl = blackHole()
		}
	}
	d := destination{cluster: cl}
	switch cl.Type {
	case mesh.ClusterEDS:
		i := cl.Pick(random())
		if i >= 0 {
			d.endpoint = cl.Members[i].Endpoint
		}
		d.edge = c.p.edge(cl, i, authority)
		return d
	case mesh.ClusterLocal:
		d.endpoint = c.meet(cl)
		d.edge = c.edgeIn
		if len(cl.Also) > 0 {
			d.edge = c.ownEdge(cl, authority)
		}
		return d
	case mesh.ClusterOriginalDst:
		d.endpoint = c.meet(cl)
	case mesh.ClusterBlackHole:
	}
	if c.dir == mesh.Inbound {
		d.edge = c.edgeIn
		return d
	}
	d.edge = c.metEdge(cl, authority)
	return d
}

// unrouted is the destination of a request that matched no route.
func (c *conn) unrouted(authority []byte) destination {
	if c.dir == mesh.Inbound {
		return destination{edge: c.edgeIn}
	}
	return destination{edge: c.p.o.Recorder.Edge(telemetry.EdgeKey{
		Direction: mesh.Outbound, HostFallback: string(bytes.ToLower(authority)),
	})}
}

// metEdge is the series of a destination without a member list. The last one is
// kept: a connection hardly ever names two hosts.
func (c *conn) metEdge(cl *cluster, authority []byte) *telemetry.Edge {
	if c.lastEdge != nil && (!cl.Service.IsZero() && len(cl.Also) == 0 || bytes.Equal(c.lastHost, authority)) {
		return c.lastEdge
	}
	service := cl.Service
	if c.target.direct != nil {
		service = c.called(cl, authority, c.target.direct.Name, c.p.o.Self.Namespace)
	}
	c.lastHost = append(c.lastHost[:0], authority...)
	c.lastEdge = c.p.o.Recorder.Edge(telemetry.EdgeKey{
		Direction: mesh.Outbound, Peer: c.target.direct, Service: service, ServiceName: cl.serviceName,
		HostFallback: string(bytes.ToLower(authority)),
	})
	return c.lastEdge
}
