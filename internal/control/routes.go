package control

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// routeConfigs are all routes of the proxies of one namespace, sorted by name.
func routeConfigs(s *mesh.Snapshot, namespace string) []mesh.RouteConfig {
	byPort := map[uint16][]portOf{}
	out := []mesh.RouteConfig{{Name: mesh.RouteAllowAny, VirtualHosts: []mesh.VirtualHost{allowAny()}}}
	for i := range s.Services {
		svc := &s.Services[i]
		for j := range svc.Ports {
			sp := &svc.Ports[j]
			switch {
			case portTaken(svc, j):
			case sp.Protocol.IsHTTP():
				byPort[sp.Port] = append(byPort[sp.Port], portOf{svc: svc, sp: sp})
			case sp.Protocol == mesh.ProtocolAuto && len(vips(svc)) > 0:
				out = append(out, mesh.RouteConfig{
					Name:         autoRoute(svc, sp),
					VirtualHosts: []mesh.VirtualHost{{Name: autoRoute(svc, sp), Domains: []string{"*"}, Routes: routeTo(svc, sp)}},
				})
			}
		}
	}
	for _, port := range slices.Sorted(maps.Keys(byPort)) {
		out = append(out, portRoutes(port, byPort[port], namespace))
	}
	slices.SortFunc(out, func(a, b mesh.RouteConfig) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// portOf is one port of one service.
type portOf struct {
	svc *mesh.Service
	sp  *mesh.ServicePort
}

// headless is 1 for the port of a headless service, otherwise 0.
func (p portOf) headless() int {
	if p.svc.Headless {
		return 1
	}
	return 0
}

// portRoutes tells the HTTP-declared services of one port apart by host name.
// No domain occurs twice (Envoy refuses that): full names come before derived
// ones, and of equals the first host wins.
func portRoutes(port uint16, services []portOf, namespace string) mesh.RouteConfig {
	taken := map[string]bool{}
	full := make([][]string, len(services))
	for i, s := range services {
		full[i] = addDomains(nil, taken, port, append([]string{s.svc.Host}, vipHosts(s.svc)...))
	}
	rc := mesh.RouteConfig{Name: portString(port), VirtualHosts: make([]mesh.VirtualHost, 0, len(services)+1)}
	for i, s := range services {
		rc.VirtualHosts = append(rc.VirtualHosts, mesh.VirtualHost{
			Name:    autoRoute(s.svc, s.sp),
			Domains: addDomains(full[i], taken, port, s.svc.ShortNames(namespace)),
			Routes:  routeTo(s.svc, s.sp),
		})
	}
	slices.SortFunc(rc.VirtualHosts, func(a, b mesh.VirtualHost) int { return strings.Compare(a.Name, b.Name) })
	rc.VirtualHosts = append(rc.VirtualHosts, allowAny())
	return rc
}

// addDomains appends each name, alone and with the port, that is not taken yet.
func addDomains(domains []string, taken map[string]bool, port uint16, names []string) []string {
	for _, name := range names {
		for _, domain := range [...]string{name, name + ":" + portString(port)} {
			if !taken[domain] {
				taken[domain] = true
				domains = append(domains, domain)
			}
		}
	}
	return domains
}

// vipHosts are the virtual IPs as a Host header writes them.
func vipHosts(svc *mesh.Service) []string {
	var out []string
	for _, vip := range vips(svc) {
		if vip.Is6() {
			out = append(out, "["+vip.String()+"]")
			continue
		}
		out = append(out, vip.String())
	}
	return out
}

func routeTo(svc *mesh.Service, sp *mesh.ServicePort) []mesh.Route {
	return []mesh.Route{{
		Name: defaultRoute, Prefix: "/",
		Clusters: []mesh.WeightedCluster{{Cluster: clusterName(svc, sp), Weight: 1}},
	}}
}

// allowAny is the virtual host of requests for hosts outside the mesh.
func allowAny() mesh.VirtualHost {
	return mesh.VirtualHost{
		Name: mesh.RouteAllowAny, Domains: []string{"*"},
		Routes: []mesh.Route{{
			Name: mesh.RouteAllowAny, Prefix: "/",
			Clusters: []mesh.WeightedCluster{{Cluster: mesh.PassthroughCluster, Weight: 1}},
		}},
	}
}

// inbound are the listeners and clusters of a workload's own ports, and the listener
// of all those that nobody declared.
func inbound(s *mesh.Snapshot, w *mesh.Workload) (listeners []mesh.Listener, clusters []mesh.Cluster) {
	listeners = append(listeners, mesh.Listener{
		Name: virtualInbound, Direction: mesh.Inbound, Address: netip.AddrPortFrom(w.IP, mesh.PortInbound), Bind: true,
		ProxyProtocol: true, Cluster: mesh.InboundPassthroughCluster,
	})
	served := targets(s, w)
	for i := range w.Ports {
		port := &w.Ports[i]
		first := slices.IndexFunc(w.Ports, func(p mesh.WorkloadPort) bool {
			return p.Port == port.Port && p.Protocol != mesh.ProtocolUDP
		})
		if port.Protocol == mesh.ProtocolUDP || first != i {
			continue
		}
		address := netip.AddrPortFrom(w.IP, port.WirePort)
		cluster := mesh.Cluster{
			Name: "inbound|" + portString(port.Port) + "||", Type: mesh.ClusterLocal,
			Port: port.Port, ConnectTimeout: connectTimeout,
		}
		protocol := port.Protocol
		if at := served[port.Port]; len(at) > 0 {
			cluster.Service, cluster.Also = at[0].svc.ServiceRef, others(at)
			if at[0].sp.Protocol != mesh.ProtocolAuto {
				protocol = at[0].sp.Protocol
			}
		}
		clusters = append(clusters, cluster)
		listeners = append(listeners, mesh.Listener{
			Name: address.Addr().String() + "_" + portString(address.Port()), Direction: mesh.Inbound,
			Address: address, Bind: true, Protocol: protocol, Cluster: cluster.Name,
		})
		for _, at := range served[port.Port] {
			// Who calls a published address calls its service, whatever name he uses.
			its := cluster
			its.Service, its.Also = at.svc.ServiceRef, nil
			if len(cluster.Also) > 0 {
				its.Name += at.svc.Host
			}
			opened := published(at.sp, protocol, its.Name)
			listeners = append(listeners, opened...)
			if len(opened) > 0 && its.Name != cluster.Name {
				clusters = append(clusters, its)
			}
		}
	}
	clusters = slices.CompactFunc(clusters, func(a, b mesh.Cluster) bool { return a.Name == b.Name })
	slices.SortFunc(listeners, func(a, b mesh.Listener) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(listeners, func(a, b mesh.Listener) bool { return a.Name == b.Name }), clusters
}

// others are the services of all but the first, each once.
func others(at []portOf) []mesh.ServiceRef {
	var out []mesh.ServiceRef
	for _, p := range at[1:] {
		if p.svc.ServiceRef != at[0].svc.ServiceRef && !slices.Contains(out, p.svc.ServiceRef) {
			out = append(out, p.svc.ServiceRef)
		}
	}
	return out
}

// targets finds the service ports that lead to each port of w. The first are those
// of services with virtual addresses, and of these that of the least name: the one
// that stands for all where nothing tells which was called. (Istio: the oldest, or
// else that of the least name.)
func targets(s *mesh.Snapshot, w *mesh.Workload) map[uint16][]portOf {
	out := map[uint16][]portOf{}
	for i := range s.Services {
		svc := &s.Services[i]
		if !selects(svc, w) {
			continue
		}
		for j := range svc.Ports {
			sp := &svc.Ports[j]
			if port, ok := sp.Target(w); ok && sp.Protocol != mesh.ProtocolUDP {
				out[port] = append(out[port], portOf{svc: svc, sp: sp})
			}
		}
	}
	for _, at := range out {
		slices.SortStableFunc(at, func(a, b portOf) int {
			return cmp.Or(a.headless()-b.headless(), strings.Compare(a.svc.Name, b.svc.Name))
		})
	}
	return out
}

// published are the listeners on the host's loopback that lead to a port.
func published(sp *mesh.ServicePort, inner mesh.Protocol, cluster string) []mesh.Listener {
	protocol := sp.Protocol
	if protocol == mesh.ProtocolAuto {
		protocol = inner
	}
	var out []mesh.Listener
	for _, address := range sp.Publish {
		out = append(out, mesh.Listener{
			Name: "published_" + address.Addr().String() + "_" + portString(address.Port()), Direction: mesh.Inbound,
			Address: address, Bind: true, Publish: true, Protocol: protocol, Cluster: cluster,
		})
	}
	return out
}
