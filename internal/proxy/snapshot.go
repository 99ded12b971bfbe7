package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/route"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

// catchAll is the outbound listener for everything no other one matches.
const catchAll = "virtualOutbound"

// snapshot is a mesh.NodeConfig made ready for traffic. It is immutable, except
// for edges that are resolved on first use.
type snapshot struct {
	config   *mesh.NodeConfig
	routes   *route.Table
	clusters map[string]*cluster

	exact    map[netip.AddrPort]*listener // outbound, by original destination
	byPort   map[uint16]*listener         // outbound, on the unspecified address
	catchAll *listener                    // nil if the configuration has none
	inbound  []*listener                  // to be bound

	byVIP map[netip.AddrPort]*cluster   // the ports of services, by virtual IP
	byIP  map[netip.Addr]*mesh.Workload // by mesh IP and both case IPs
	byKey map[string]*mesh.Workload

	addresses map[string][]netip.Addr // of names, by host

	superseded chan struct{} // closed when a newer snapshot is in force
}

// listener is a mesh.Listener with its names resolved.
type listener struct {
	mesh.Listener
	routes  *route.Config // nil: everything goes to cluster
	cluster *cluster      // nil only if routes is set
}

// cluster is what the proxy keeps for one upstream.Cluster.
type cluster struct {
	*upstream.Cluster
	serviceName string // overrides destination_service_name; "" does not
	members     []memberEdge
	none        atomic.Pointer[telemetry.Edge] // no endpoint was reached
}

// memberEdge is the series of one member, resolved on first use.
type memberEdge struct {
	workload *mesh.Workload // nil: outside the mesh
	edge     atomic.Pointer[telemetry.Edge]
}

// compile makes cfg ready. Endpoints of prev that stay keep their connections;
// nothing of prev is changed, and no connection is made or closed.
func (p *Proxy) compile(cfg *mesh.NodeConfig, prev *snapshot) (*snapshot, error) {
	s := &snapshot{
		config: cfg, clusters: make(map[string]*cluster, len(cfg.Clusters)),
		exact: map[netip.AddrPort]*listener{}, byPort: map[uint16]*listener{},
		byIP: map[netip.Addr]*mesh.Workload{}, byKey: map[string]*mesh.Workload{},
		addresses:  make(map[string][]netip.Addr, len(cfg.Names)),
		superseded: make(chan struct{}),
	}
	for i := range cfg.Names {
		s.addresses[cfg.Names[i].Host] = cfg.Names[i].Addresses
	}
	for i := range cfg.Workloads {
		w := &cfg.Workloads[i]
		s.byKey[w.Key()] = w
		for _, a := range []netip.Addr{w.IP, w.CaseIP, w.CaseIP6} {
			if a.IsValid() {
				s.byIP[a] = w
			}
		}
	}
	var err error
	if s.routes, err = route.Compile(cfg.Routes); err != nil {
		return nil, fmt.Errorf("compile routes: %w", err)
	}
	endpoints := map[string][]mesh.Endpoint{}
	for _, e := range cfg.Endpoints {
		endpoints[e.Cluster] = e.Endpoints
	}
	for _, c := range cfg.Clusters {
		if s.clusters[c.Name] != nil {
			return nil, fmt.Errorf("cluster %s is defined twice", c.Name)
		}
		s.clusters[c.Name] = p.compileCluster(c, endpoints[c.Name], s, prev)
	}
	for i := range cfg.Listeners {
		if err := s.addListener(&cfg.Listeners[i]); err != nil {
			return nil, fmt.Errorf("listener %s: %w", cfg.Listeners[i].Name, err)
		}
	}
	s.addVirtualIPs()
	return s, nil
}

// addVirtualIPs finds the cluster of each service port behind a virtual IP.
func (s *snapshot) addVirtualIPs() {
	s.byVIP = map[netip.AddrPort]*cluster{}
	for i := range s.config.Clusters {
		c := &s.config.Clusters[i]
		if c.Type != mesh.ClusterEDS || c.Service.IsZero() {
			continue
		}
		for _, a := range s.addresses[c.Service.Host] {
			if mesh.IsServiceVIP(a) {
				s.byVIP[netip.AddrPortFrom(a, c.Port)] = s.clusters[c.Name]
			}
		}
	}
}

func (p *Proxy) compileCluster(c mesh.Cluster, eps []mesh.Endpoint, s, prev *snapshot) *cluster {
	if c.ConnectTimeout <= 0 {
		c.ConnectTimeout = p.o.ConnectTimeout
	}
	var old *upstream.Cluster
	if prev != nil && prev.clusters[c.Name] != nil {
		old = prev.clusters[c.Name].Cluster
	}
	if c.Type != mesh.ClusterEDS {
		eps = nil
	}
	cl := &cluster{Cluster: upstream.NewCluster(c, eps, old, p.peerLimits(), p.dialPeer)}
	cl.members = make([]memberEdge, len(cl.Members))
	for i := range cl.Members {
		cl.members[i].workload = s.byKey[cl.Members[i].Workload]
	}
	switch c.Name {
	case mesh.PassthroughCluster, mesh.BlackHoleCluster, mesh.InboundPassthroughCluster:
		cl.serviceName = c.Name
	default:
		if c.Type == mesh.ClusterOriginalDst {
			cl.serviceName = mesh.PassthroughCluster
		}
	}
	return cl
}

func (s *snapshot) addListener(ml *mesh.Listener) error {
	l := &listener{Listener: *ml}
	if ml.RouteConfig != "" {
		if l.routes = s.routes.Config(ml.RouteConfig); l.routes == nil {
			return fmt.Errorf("route configuration %s does not exist", ml.RouteConfig)
		}
	}
	if ml.Cluster != "" {
		if l.cluster = s.clusters[ml.Cluster]; l.cluster == nil {
			return fmt.Errorf("cluster %s does not exist", ml.Cluster)
		}
	}
	if l.cluster == nil && l.routes == nil {
		return errors.New("neither a cluster nor routes")
	}
	if ml.Direction == mesh.Inbound {
		if l.cluster == nil {
			return errors.New("an inbound listener needs a cluster")
		}
		if ml.Bind || ml.Publish {
			s.inbound = append(s.inbound, l)
		}
		return nil
	}
	switch {
	case ml.Name == catchAll:
		s.catchAll = l
	case !ml.Address.Addr().IsValid() || ml.Address.Addr().IsUnspecified():
		s.byPort[ml.Address.Port()] = l
	default:
		s.exact[netip.AddrPortFrom(ml.Address.Addr().Unmap(), ml.Address.Port())] = l
	}
	return nil
}

// edge finds the series of member i of cl; -1 is "no endpoint was reached".
// authority stands for the service while the cluster has none.
func (p *Proxy) edge(cl *cluster, i int, authority []byte) *telemetry.Edge {
	slot, workload := &cl.none, (*mesh.Workload)(nil)
	if i >= 0 && i < len(cl.members) {
		slot, workload = &cl.members[i].edge, cl.members[i].workload
	}
	if !cl.Service.IsZero() {
		if e := slot.Load(); e != nil {
			return e
		}
	}
	e := p.o.Recorder.Edge(telemetry.EdgeKey{
		Direction: mesh.Outbound, Peer: workload, Service: cl.Service, ServiceName: cl.serviceName,
		HostFallback: strings.ToLower(string(authority)),
	})
	if !cl.Service.IsZero() {
		slot.Store(e)
	}
	return e
}

// servicesAt finds the services that a call to a workload's own address is for, wire
// being its wire address: the headless ones, since their names resolve to it; without
// any, the only service that leads there. The first one counts where nothing tells
// which of several was called.
func (s *snapshot) servicesAt(address netip.Addr, wire netip.AddrPort) []mesh.ServiceRef {
	var headless, all []mesh.ServiceRef
	for i := range s.config.Endpoints {
		ce := &s.config.Endpoints[i]
		c := s.clusters[ce.Cluster]
		if c == nil || c.Service.IsZero() || slices.Contains(all, c.Service) ||
			!slices.ContainsFunc(ce.Endpoints, func(e mesh.Endpoint) bool { return e.Address == wire }) {
			continue
		}
		all = append(all, c.Service)
		if slices.Contains(s.addresses[c.Service.Host], address) {
			headless = append(headless, c.Service)
		}
	}
	if len(headless) == 0 && len(all) == 1 {
		return all
	}
	return headless
}
