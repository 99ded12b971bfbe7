package xds

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/xds/envoy"
)

// errShape is the common part of what a resource says that we do not support.
var errShape = errors.New("not supported")

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errShape, fmt.Sprintf(format, args...))
}

func decodeListener(m *envoy.Listener) (mesh.Listener, error) {
	l := mesh.Listener{Name: m.Name, Bind: m.BindToPort == nil || m.BindToPort.Value}
	var err error
	if l.Address, err = decodeAddress(m.Address); err != nil {
		return l, err
	}
	switch m.TrafficDirection {
	case envoy.Inbound:
		l.Direction = mesh.Inbound
	case envoy.Outbound:
		l.Direction = mesh.Outbound
	default:
		return l, unsupported("traffic direction %d", m.TrafficDirection)
	}
	own := metadata(m.Metadata, ourMetadata)
	if l.Protocol, err = protocolNamed(own[metaProtocol].Text()); err != nil {
		return l, err
	}
	l.Publish = own[metaPublish] != nil && own[metaPublish].Bool != nil && *own[metaPublish].Bool
	l.ProxyProtocol = slices.ContainsFunc(m.ListenerFilters, func(f *envoy.ListenerFilter) bool {
		_, ok := f.TypedConfig.(*envoy.ProxyProtocol)
		return ok
	})
	if err := decodeChains(m, &l); err != nil {
		return l, err
	}
	return l, validListener(&l)
}

// decodeChains reads where the connections of a listener go.
func decodeChains(m *envoy.Listener, l *mesh.Listener) error {
	if len(m.FilterChains) != 1 || (m.DefaultFilterChain != nil) != (l.Protocol == mesh.ProtocolAuto) {
		return unsupported("%d filter chains, default %v, for protocol %v", len(m.FilterChains), m.DefaultFilterChain != nil, l.Protocol)
	}
	for _, chain := range [...]*envoy.FilterChain{m.FilterChains[0], m.DefaultFilterChain} {
		if chain == nil {
			continue
		}
		if len(chain.Filters) != 1 {
			return unsupported("filter chain of %d filters", len(chain.Filters))
		}
		switch f := chain.Filters[0].TypedConfig.(type) {
		case *envoy.TCPProxy:
			if err := leadsTo(l, f.Cluster); err != nil {
				return err
			}
		case *envoy.HTTPConnectionManager:
			if err := decodeManager(f, l); err != nil {
				return err
			}
		default:
			return unsupported("network filter %q", chain.Filters[0].Name)
		}
	}
	return nil
}

// leadsTo notes the cluster of a filter chain, which all chains of a listener share.
func leadsTo(l *mesh.Listener, cluster string) error {
	if l.Cluster != "" && l.Cluster != cluster {
		return unsupported("filter chains that lead to %q and %q", l.Cluster, cluster)
	}
	l.Cluster = cluster
	return nil
}

func decodeManager(f *envoy.HTTPConnectionManager, l *mesh.Listener) error {
	for _, h := range f.HTTPFilters {
		if _, ok := h.TypedConfig.(*envoy.Router); !ok {
			return unsupported("HTTP filter %q", h.Name)
		}
	}
	switch {
	case f.RDS != nil && f.RouteConfig == nil && l.Direction == mesh.Outbound:
		l.RouteConfig = f.RDS.RouteConfigName
		return nil
	case f.RDS == nil && f.RouteConfig != nil && l.Direction == mesh.Inbound:
		routes, err := decodeRoutes(f.RouteConfig)
		if err != nil {
			return err
		}
		if len(routes.VirtualHosts) == 1 && len(routes.VirtualHosts[0].Routes) == 1 && len(routes.VirtualHosts[0].Routes[0].Clusters) == 1 {
			return leadsTo(l, routes.VirtualHosts[0].Routes[0].Clusters[0].Cluster)
		}
	}
	return unsupported("routes of a %s listener", map[mesh.Direction]string{mesh.Outbound: "outbound", mesh.Inbound: "inbound"}[l.Direction])
}

func decodeRoutes(m *envoy.RouteConfiguration) (mesh.RouteConfig, error) {
	c := mesh.RouteConfig{Name: m.Name}
	for _, vh := range m.VirtualHosts {
		host := mesh.VirtualHost{Name: vh.Name, Domains: vh.Domains}
		for i, r := range vh.Routes {
			route, err := decodeRoute(r)
			if err != nil {
				return c, fmt.Errorf("virtual host %q: route %d %q: %w", vh.Name, i, r.Name, err)
			}
			host.Routes = append(host.Routes, route)
		}
		c.VirtualHosts = append(c.VirtualHosts, host)
	}
	return c, validRoutes(&c)
}

func decodeRoute(m *envoy.Route) (mesh.Route, error) {
	r := mesh.Route{Name: m.Name}
	if m.Match == nil || m.Match.Prefix == nil || m.Route == nil || m.Route.Timeout == nil {
		return r, unsupported("route without a path prefix, a cluster or a timeout")
	}
	r.Prefix = *m.Match.Prefix
	var err error
	if r.Timeout, err = m.Route.Timeout.Duration(); err != nil {
		return r, err
	}
	switch {
	case m.Route.Cluster != nil && m.Route.WeightedClusters == nil:
		r.Clusters = []mesh.WeightedCluster{{Cluster: *m.Route.Cluster, Weight: 1}}
	case m.Route.Cluster == nil && m.Route.WeightedClusters != nil:
		for _, c := range m.Route.WeightedClusters.Clusters {
			weight := uint32(0)
			if c.Weight != nil {
				weight = c.Weight.Value
			}
			r.Clusters = append(r.Clusters, mesh.WeightedCluster{Cluster: c.Name, Weight: weight})
		}
	default:
		return r, unsupported("route with both or neither of cluster and weighted clusters")
	}
	return r, nil
}

func decodeCluster(m *envoy.Cluster) (mesh.Cluster, error) {
	c := mesh.Cluster{Name: m.Name}
	if m.ConnectTimeout != nil {
		var err error
		if c.ConnectTimeout, err = m.ConnectTimeout.Duration(); err != nil {
			return c, err
		}
	}
	switch {
	case m.Type != nil && *m.Type == envoy.EDS:
		if m.EDSClusterConfig == nil || m.EDSClusterConfig.ServiceName != m.Name {
			return c, unsupported("endpoints of another name than the cluster's")
		}
		c.Type = mesh.ClusterEDS
	case m.Type != nil && *m.Type == envoy.OriginalDest:
		c.Type = mesh.ClusterOriginalDst
	case m.Type != nil && *m.Type == envoy.Static && m.LoadAssignment == nil:
		c.Type = mesh.ClusterBlackHole
	case m.Type != nil && *m.Type == envoy.Static:
		c.Type = mesh.ClusterLocal
	default:
		return c, unsupported("cluster type")
	}
	if err := decodeClusterMetadata(m, &c); err != nil {
		return c, err
	}
	if c.Type == mesh.ClusterLocal {
		eps, err := decodeEndpoints(m.LoadAssignment)
		if err != nil {
			return c, err
		}
		if len(eps.Endpoints) != 1 || !eps.Endpoints[0].Address.Addr().IsLoopback() || eps.Endpoints[0].Address.Port() != c.Port {
			return c, unsupported("static endpoints other than port %d of this workload", c.Port)
		}
	}
	return c, validCluster(&c)
}

func decodeClusterMetadata(m *envoy.Cluster, c *mesh.Cluster) error {
	fields := metadata(m.Metadata, istioMetadata)
	if v := fields[metaPort]; v != nil {
		if v.Number == nil || *v.Number != math.Trunc(*v.Number) || *v.Number < 1 || *v.Number > math.MaxUint16 {
			return unsupported("metadata istio.%s is not a port", metaPort)
		}
		c.Port = uint16(*v.Number)
	}
	v := fields[metaServices]
	if v == nil || v.List == nil || len(v.List.Values) == 0 {
		return nil
	}
	var refs []mesh.ServiceRef
	for _, value := range v.List.Values {
		if s := value.Struct; s != nil {
			refs = append(refs, mesh.ServiceRef{Host: s.Fields[metaHost].Text(), Name: s.Fields[metaName].Text(), Namespace: s.Fields[metaNS].Text()})
		}
	}
	if len(refs) > 0 {
		c.Service = refs[0]
	}
	if len(refs) > 1 {
		c.Also = refs[1:]
	}
	return nil
}

func decodeEndpoints(m *envoy.ClusterLoadAssignment) (mesh.ClusterEndpoints, error) {
	e := mesh.ClusterEndpoints{Cluster: m.ClusterName}
	for _, place := range m.Endpoints {
		for i, ep := range place.LbEndpoints {
			var address *envoy.Address
			if ep.Endpoint != nil {
				address = ep.Endpoint.Address
			}
			a, err := decodeAddress(address)
			if err != nil {
				return e, fmt.Errorf("endpoint %d: %w", i, err)
			}
			out := mesh.Endpoint{Address: a, Workload: metadata(ep.Metadata, ourMetadata)[metaWorkload].Text()}
			if ep.Weight != nil {
				out.Weight = ep.Weight.Value
			}
			e.Endpoints = append(e.Endpoints, out)
		}
	}
	return e, nil
}

func decodeWorkload(m *envoy.Workload) (mesh.Workload, error) {
	w := mesh.Workload{
		Name: m.Name, Namespace: m.Namespace, Owner: m.WorkloadName, ServiceAccount: m.ServiceAccount,
		Cluster: m.ClusterID, Ready: m.Status == envoy.Healthy,
	}
	i := slices.IndexFunc(m.Extensions, func(e *envoy.Extension) bool { return e.Name == ourMetadata })
	if i < 0 {
		return w, unsupported("workload without the extension %q", ourMetadata)
	}
	own, ok := m.Extensions[i].Config.(*envoy.VitrineWorkload)
	if !ok {
		return w, unsupported("extension %q", ourMetadata)
	}
	w.OwnerKind, w.Labels = mesh.WorkloadKind(own.OwnerKind), own.Labels
	for _, a := range [...]struct {
		to   *netip.Addr
		from []byte
	}{{&w.IP, own.MeshIP}, {&w.CaseIP, own.CaseIP}, {&w.CaseIP6, own.CaseIP6}} {
		var valid bool
		if *a.to, valid = netip.AddrFromSlice(a.from); !valid && len(a.from) > 0 {
			return w, unsupported("address of %d bytes", len(a.from))
		}
	}
	for _, p := range own.Ports {
		protocol, err := protocolNamed(p.Protocol)
		if err != nil {
			return w, err
		}
		if p.Port > math.MaxUint16 || p.WirePort > math.MaxUint16 {
			return w, unsupported("port %d, wire port %d", p.Port, p.WirePort)
		}
		w.Ports = append(w.Ports, mesh.WorkloadPort{Name: p.Name, Port: uint16(p.Port), Protocol: protocol, WirePort: uint16(p.WirePort)})
	}
	return w, validWorkload(&w)
}

func decodeName(host string, m *envoy.NameTable) (mesh.Name, error) {
	n := mesh.Name{Host: host}
	if m.NameInfo == nil {
		return n, unsupported("name without its own record")
	}
	n.Namespace, n.Short = m.NameInfo.Namespace, m.NameInfo.ShortName
	for _, ip := range m.NameInfo.IPs {
		a, err := netip.ParseAddr(ip)
		if err != nil {
			return n, fmt.Errorf("address: %w", err)
		}
		n.Addresses = append(n.Addresses, a)
	}
	for _, r := range m.NameInfo.SRV {
		if r.Port > math.MaxUint16 {
			return n, unsupported("port %d of %s", r.Port, r.Service)
		}
		n.SRV = append(n.SRV, mesh.SRV{Service: r.Service, Target: r.Target, Port: uint16(r.Port)})
	}
	return n, validName(&n)
}

func decodeAddress(a *envoy.Address) (netip.AddrPort, error) {
	if a == nil || a.SocketAddress == nil || a.SocketAddress.PortValue == nil || *a.SocketAddress.PortValue > math.MaxUint16 {
		return netip.AddrPort{}, unsupported("address without IP and port")
	}
	ip, err := netip.ParseAddr(a.SocketAddress.Address)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address: %w", err)
	}
	if ip.Zone() != "" {
		return netip.AddrPort{}, unsupported("address %v with a zone", ip)
	}
	return netip.AddrPortFrom(ip, uint16(*a.SocketAddress.PortValue)), nil
}

func metadata(m *envoy.Metadata, filter string) map[string]*envoy.Value {
	if m == nil || m.FilterMetadata[filter] == nil {
		return nil
	}
	return m.FilterMetadata[filter].Fields
}

func protocolNamed(name string) (mesh.Protocol, error) {
	for p := mesh.ProtocolAuto; p <= mesh.ProtocolUDP; p++ {
		if p.String() == name {
			return p, nil
		}
	}
	return 0, unsupported("protocol %q", strings.ToValidUTF8(name, "?"))
}
