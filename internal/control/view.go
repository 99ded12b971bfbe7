package control

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

const (
	// connectTimeout is Istio's default (meshConfig.connectTimeout).
	connectTimeout = 10 * time.Second
	// virtualOutbound is Istio's name of the listener that takes what no other takes.
	virtualOutbound = "virtualOutbound"
	// virtualInbound is Istio's name of the same for what comes in.
	virtualInbound = "virtualInbound"
	// defaultRoute is Istio's name of a route that no VirtualService named.
	defaultRoute = "default"
)

// View computes what the proxy of the workload with the given key needs of s.
// Names are Istio's. It is pure: equal arguments give equal results, and a
// change of s that does not concern the proxy gives an equal result. The
// result may share memory with s. Proxies are served by Plane.View, which shares
// work between them; this says what it has to give, and tests hold it to that.
func View(s *mesh.Snapshot, workload string) (*mesh.NodeConfig, error) {
	return newViewCache(s).view(workload)
}

// viewCache keeps the parts of the views of one Snapshot that are the same for
// all workloads, or for all of a namespace. Safe for concurrent use.
type viewCache struct {
	s      *mesh.Snapshot
	common func() *commonView

	mu     sync.Mutex
	routes map[string][]mesh.RouteConfig // by namespace; guarded by mu
}

// commonView is the part of a NodeConfig that is the same for all workloads.
type commonView struct {
	listeners []mesh.Listener // outbound, sorted
	fixed     []mesh.Cluster  // the clusters without service, sorted
	clusters  []mesh.Cluster  // outbound, sorted
	endpoints []mesh.ClusterEndpoints
	names     []mesh.Name
}

func newViewCache(s *mesh.Snapshot) *viewCache {
	return &viewCache{
		s:      s,
		common: sync.OnceValue(func() *commonView { return newCommonView(s) }),
		routes: map[string][]mesh.RouteConfig{},
	}
}

func (c *viewCache) view(key string) (*mesh.NodeConfig, error) {
	i, ok := slices.BinarySearchFunc(c.s.Workloads, key, func(w mesh.Workload, key string) int {
		return strings.Compare(w.Key(), key)
	})
	if !ok {
		return nil, fmt.Errorf("workload %s is not in the mesh (snapshot %d)", key, c.s.Version)
	}
	w := &c.s.Workloads[i]
	common := c.common()
	listeners, clusters := inbound(c.s, w)
	cfg := &mesh.NodeConfig{
		Listeners: slices.Concat(listeners, common.listeners),
		Clusters:  slices.Concat(common.fixed, clusters, common.clusters),
		Routes:    c.namespaceRoutes(w.Namespace),
		Endpoints: common.endpoints,
		Workloads: c.s.Workloads,
		Names:     common.names,
	}
	slices.SortFunc(cfg.Listeners, func(a, b mesh.Listener) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(cfg.Clusters, func(a, b mesh.Cluster) int { return strings.Compare(a.Name, b.Name) })
	return cfg, nil
}

func (c *viewCache) namespaceRoutes(namespace string) []mesh.RouteConfig {
	c.mu.Lock()
	defer c.mu.Unlock()
	routes, ok := c.routes[namespace]
	if !ok {
		routes = routeConfigs(c.s, namespace)
		c.routes[namespace] = routes
	}
	return routes
}

func newCommonView(s *mesh.Snapshot) *commonView {
	v := &commonView{
		fixed: []mesh.Cluster{
			{Name: mesh.BlackHoleCluster, Type: mesh.ClusterBlackHole, ConnectTimeout: connectTimeout},
			{Name: mesh.InboundPassthroughCluster, Type: mesh.ClusterOriginalDst, ConnectTimeout: connectTimeout},
			{Name: mesh.PassthroughCluster, Type: mesh.ClusterOriginalDst, ConnectTimeout: connectTimeout},
		},
		listeners: []mesh.Listener{{
			Name:        virtualOutbound,
			Address:     netip.AddrPortFrom(netip.IPv4Unspecified(), mesh.PortOutbound),
			RouteConfig: mesh.RouteAllowAny,
			Cluster:     mesh.PassthroughCluster,
		}},
	}
	httpPorts := map[uint16]bool{}
	for i := range s.Services {
		svc := &s.Services[i]
		behind := workloadsBehind(s, svc)
		v.names = append(v.names, serviceNames(svc, behind)...)
		for j := range svc.Ports {
			sp := &svc.Ports[j]
			if sp.Protocol == mesh.ProtocolUDP || portTaken(svc, j) {
				continue
			}
			cluster := clusterName(svc, sp)
			v.clusters = append(v.clusters, mesh.Cluster{
				Name: cluster, Service: svc.ServiceRef, Port: sp.Port, ConnectTimeout: connectTimeout,
			})
			v.endpoints = append(v.endpoints, mesh.ClusterEndpoints{Cluster: cluster, Endpoints: endpoints(sp, behind)})
			if sp.Protocol.IsHTTP() {
				httpPorts[sp.Port] = true
				continue
			}
			v.listeners = append(v.listeners, vipListeners(svc, sp)...)
		}
	}
	for port := range httpPorts {
		v.listeners = append(v.listeners, portListener(port))
	}
	slices.SortFunc(v.listeners, func(a, b mesh.Listener) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(v.clusters, func(a, b mesh.Cluster) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(v.endpoints, func(a, b mesh.ClusterEndpoints) int { return strings.Compare(a.Cluster, b.Cluster) })
	slices.SortFunc(v.names, func(a, b mesh.Name) int { return strings.Compare(a.Host, b.Host) })
	v.names = slices.CompactFunc(v.names, func(a, b mesh.Name) bool { return a.Host == b.Host })
	return v
}

// portTaken reports whether port j of svc repeats the number of an earlier TCP
// port (Kubernetes allows the same number for TCP and UDP only).
func portTaken(svc *mesh.Service, j int) bool {
	return slices.ContainsFunc(svc.Ports[:j], func(p mesh.ServicePort) bool {
		return p.Port == svc.Ports[j].Port && p.Protocol != mesh.ProtocolUDP
	})
}

func clusterName(svc *mesh.Service, sp *mesh.ServicePort) string {
	return "outbound|" + portString(sp.Port) + "||" + svc.Host
}

func portString(port uint16) string { return strconv.Itoa(int(port)) }

// portListener serves all HTTP-declared services of a port: the Host header
// decides.
func portListener(port uint16) mesh.Listener {
	return mesh.Listener{
		Name:        "0.0.0.0_" + portString(port),
		Address:     netip.AddrPortFrom(netip.IPv4Unspecified(), port),
		Protocol:    mesh.ProtocolHTTP,
		RouteConfig: portString(port),
	}
}

// vipListeners are the listeners of a port that is not declared as HTTP, one
// for each virtual IP. A headless service has none.
func vipListeners(svc *mesh.Service, sp *mesh.ServicePort) []mesh.Listener {
	var out []mesh.Listener
	for _, vip := range vips(svc) {
		l := mesh.Listener{
			Name:     vip.String() + "_" + portString(sp.Port),
			Address:  netip.AddrPortFrom(vip, sp.Port),
			Protocol: sp.Protocol,
			Cluster:  clusterName(svc, sp),
		}
		if sp.Protocol == mesh.ProtocolAuto {
			l.RouteConfig = autoRoute(svc, sp)
		}
		out = append(out, l)
	}
	return out
}

func vips(svc *mesh.Service) []netip.Addr {
	var out []netip.Addr
	for _, vip := range []netip.Addr{svc.VIP4, svc.VIP6} {
		if vip.IsValid() && !svc.Headless {
			out = append(out, vip)
		}
	}
	return out
}

// autoRoute names the RouteConfig of one port of one service.
func autoRoute(svc *mesh.Service, sp *mesh.ServicePort) string {
	return svc.Host + ":" + portString(sp.Port)
}

// workloadsBehind finds the workloads that serve svc now, in the order of their
// keys.
func workloadsBehind(s *mesh.Snapshot, svc *mesh.Service) []*mesh.Workload {
	var out []*mesh.Workload
	for i := range s.Workloads {
		if w := &s.Workloads[i]; (w.Ready || svc.PublishNotReady) && selects(svc, w) {
			out = append(out, w)
		}
	}
	return out
}

// selects reports whether w is behind svc: a selector finds workloads of the
// service's own namespace only.
func selects(svc *mesh.Service, w *mesh.Workload) bool {
	return w.Namespace == svc.Namespace && w.Matches(svc.Selector)
}

// endpoints lists the wire addresses that serve sp, in the order of their
// workloads' keys.
func endpoints(sp *mesh.ServicePort, behind []*mesh.Workload) []mesh.Endpoint {
	var out []mesh.Endpoint
	for _, w := range behind {
		port, ok := sp.Target(w)
		if !ok {
			continue
		}
		if wire, ok := w.WirePortOf(port); ok {
			out = append(out, mesh.Endpoint{Address: wire, Workload: w.Key()})
		}
	}
	return out
}

// serviceNames are the DNS names of a service and, if it is headless, of the pods
// behind it, as in Kubernetes' DNS specification (sections 2.3 and 2.4). A pod's
// name is its host name there, and the identifier of one that has none.
func serviceNames(svc *mesh.Service, behind []*mesh.Workload) []mesh.Name {
	name := mesh.Name{Host: svc.Host, Namespace: svc.Namespace, Short: svc.Name, Addresses: vips(svc)}
	if !svc.Headless {
		for i := range svc.Ports {
			if sp := &svc.Ports[i]; sp.Name != "" {
				name.SRV = append(name.SRV, mesh.SRV{Service: srvService(sp), Target: svc.Host, Port: sp.Port})
			}
		}
		return []mesh.Name{name}
	}
	out := make([]mesh.Name, 1, len(behind)+1)
	for _, w := range behind {
		own := caseAddresses(w)
		name.Addresses = append(name.Addresses, own...)
		out = append(out, mesh.Name{Host: podHost(svc, w), Namespace: svc.Namespace, Addresses: own})
	}
	for i := range svc.Ports {
		sp := &svc.Ports[i]
		if sp.Name == "" {
			continue
		}
		for _, w := range behind {
			// Nothing stands before a pod's address, so its own port it must be.
			if port, ok := sp.Target(w); ok {
				name.SRV = append(name.SRV, mesh.SRV{Service: srvService(sp), Target: podHost(svc, w), Port: port})
			}
		}
	}
	out[0] = name
	return out
}

func podHost(svc *mesh.Service, w *mesh.Workload) string { return w.Name + "." + svc.Host }

// srvService is the first part of the name of a port's SRV records.
func srvService(sp *mesh.ServicePort) string {
	transport := "tcp"
	if sp.Protocol == mesh.ProtocolUDP {
		transport = "udp"
	}
	return "_" + strings.ToLower(sp.Name) + "._" + transport
}

func caseAddresses(w *mesh.Workload) []netip.Addr {
	var out []netip.Addr
	for _, a := range []netip.Addr{w.CaseIP, w.CaseIP6} {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}
