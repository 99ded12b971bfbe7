package xds

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/xds/envoy"
)

// Names that are ours in Envoy's metadata, and Istio's.
const (
	ourMetadata   = "vitrine"
	istioMetadata = "istio"

	metaProtocol = "protocol"
	metaPublish  = "publish"
	metaWorkload = "workload"
	metaServices = "services"
	metaPort     = "default_original_port"
	metaHost     = "host"
	metaName     = "name"
	metaNS       = "namespace"
)

// encodeListener writes l as an Envoy listener. What Envoy has no field for,
// the exact protocol and Publish, goes into metadata.
func encodeListener(l *mesh.Listener) (envoy.Message, error) {
	if err := validListener(l); err != nil {
		return nil, err
	}
	out := &envoy.Listener{
		Name:             l.Name,
		Address:          encodeAddress(l.Address),
		TrafficDirection: envoy.Outbound,
	}
	if l.Direction == mesh.Inbound {
		out.TrafficDirection = envoy.Inbound
	}
	if !l.Bind {
		out.BindToPort = &envoy.BoolValue{}
	}
	if l.Name == catchAll {
		out.UseOriginalDst = &envoy.BoolValue{Value: true}
		out.BindToPort = &envoy.BoolValue{Value: l.Bind}
	}
	own := map[string]*envoy.Value{metaProtocol: envoy.StringValue(l.Protocol.String())}
	if l.Publish {
		own[metaPublish] = &envoy.Value{Bool: new(true)}
	}
	out.Metadata = &envoy.Metadata{FilterMetadata: map[string]*envoy.Struct{ourMetadata: {Fields: own}}}
	tcp := &envoy.FilterChain{Filters: []*envoy.Filter{{
		Name: "envoy.filters.network.tcp_proxy", TypedConfig: &envoy.TCPProxy{StatPrefix: l.Cluster, Cluster: l.Cluster},
	}}}
	if l.ProxyProtocol {
		out.ListenerFilters = []*envoy.ListenerFilter{
			{Name: "envoy.filters.listener.proxy_protocol", TypedConfig: &envoy.ProxyProtocol{}},
		}
	}
	switch {
	case l.Protocol == mesh.ProtocolAuto:
		http := httpChain(l)
		// Not TLS: the ALPN of a ClientHello names http/1.1, too.
		http.Match = &envoy.FilterChainMatch{
			TransportProtocol: envoy.RawBuffer, ApplicationProtocols: []string{"http/1.0", "http/1.1", "h2c"},
		}
		out.FilterChains = []*envoy.FilterChain{http}
		out.DefaultFilterChain = tcp
		out.ListenerFilters = append(out.ListenerFilters,
			&envoy.ListenerFilter{Name: "envoy.filters.listener.tls_inspector", TypedConfig: &envoy.TLSInspector{}},
			&envoy.ListenerFilter{Name: "envoy.filters.listener.http_inspector", TypedConfig: &envoy.HTTPInspector{}},
		)
	case l.Protocol.IsHTTP():
		out.FilterChains = []*envoy.FilterChain{httpChain(l)}
	default:
		out.FilterChains = []*envoy.FilterChain{tcp}
	}
	if l.Protocol == mesh.ProtocolTLS {
		out.ListenerFilters = append(out.ListenerFilters,
			&envoy.ListenerFilter{Name: "envoy.filters.listener.tls_inspector", TypedConfig: &envoy.TLSInspector{}},
		)
	}
	return out, nil
}

// catchAll is the listener that takes what no other takes. A stock Envoy binds
// nothing else for outbound traffic and hands connections over by their
// original destination.
const catchAll = "virtualOutbound"

func httpChain(l *mesh.Listener) *envoy.FilterChain {
	manager := &envoy.HTTPConnectionManager{
		StatPrefix:  strings.ToLower(l.Name),
		HTTPFilters: []*envoy.HTTPFilter{{Name: "envoy.filters.http.router", TypedConfig: &envoy.Router{}}},
	}
	if l.Direction == mesh.Outbound {
		manager.RDS = &envoy.RDS{ConfigSource: envoy.OverADS(), RouteConfigName: l.RouteConfig}
	} else {
		manager.RouteConfig = &envoy.RouteConfiguration{
			Name: l.Cluster,
			VirtualHosts: []*envoy.VirtualHost{{
				Name: "inbound|http", Domains: []string{"*"},
				Routes: []*envoy.Route{{
					Match: &envoy.RouteMatch{Prefix: new("/")},
					Route: &envoy.RouteAction{Cluster: &l.Cluster, Timeout: &envoy.Duration{}},
					Name:  "default",
				}},
			}},
		}
	}
	return &envoy.FilterChain{Filters: []*envoy.Filter{{
		Name: "envoy.filters.network.http_connection_manager", TypedConfig: manager,
	}}}
}

func encodeRoutes(c *mesh.RouteConfig) (envoy.Message, error) {
	if err := validRoutes(c); err != nil {
		return nil, err
	}
	out := &envoy.RouteConfiguration{Name: c.Name}
	for i := range c.VirtualHosts {
		vh := &c.VirtualHosts[i]
		host := &envoy.VirtualHost{Name: vh.Name, Domains: vh.Domains}
		for j := range vh.Routes {
			host.Routes = append(host.Routes, encodeRoute(&vh.Routes[j]))
		}
		out.VirtualHosts = append(out.VirtualHosts, host)
	}
	return out, nil
}

// encodeRoute always writes the timeout: for Envoy a missing one is 15 s.
func encodeRoute(r *mesh.Route) *envoy.Route {
	action := &envoy.RouteAction{Timeout: envoy.NewDuration(r.Timeout)}
	if len(r.Clusters) == 1 && r.Clusters[0].Weight == 1 {
		action.Cluster = &r.Clusters[0].Cluster
	} else {
		action.WeightedClusters = &envoy.WeightedCluster{}
		for _, c := range r.Clusters {
			action.WeightedClusters.Clusters = append(action.WeightedClusters.Clusters,
				&envoy.ClusterWeight{Name: c.Cluster, Weight: &envoy.UInt32Value{Value: c.Weight}})
		}
	}
	return &envoy.Route{Name: r.Name, Match: &envoy.RouteMatch{Prefix: &r.Prefix}, Route: action}
}

func encodeCluster(c *mesh.Cluster) (envoy.Message, error) {
	if err := validCluster(c); err != nil {
		return nil, err
	}
	out := &envoy.Cluster{Name: c.Name, Metadata: clusterMetadata(c)}
	if c.ConnectTimeout > 0 {
		out.ConnectTimeout = envoy.NewDuration(c.ConnectTimeout)
	}
	switch c.Type {
	case mesh.ClusterEDS:
		out.Type = new(envoy.EDS)
		out.EDSClusterConfig = &envoy.EDSClusterConfig{EDSConfig: envoy.OverADS(), ServiceName: c.Name}
		out.LbPolicy = envoy.LeastRequest
	case mesh.ClusterLocal:
		out.Type = new(envoy.Static)
		out.LoadAssignment = &envoy.ClusterLoadAssignment{
			ClusterName: c.Name,
			Endpoints: []*envoy.LocalityLbEndpoints{{LbEndpoints: []*envoy.LbEndpoint{{
				Endpoint: &envoy.Endpoint{Address: encodeAddress(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), c.Port))},
			}}}},
		}
	case mesh.ClusterOriginalDst:
		out.Type = new(envoy.OriginalDest)
		out.LbPolicy = envoy.ClusterProvided
	case mesh.ClusterBlackHole:
		out.Type = new(envoy.Static)
	}
	if c.Type != mesh.ClusterBlackHole {
		out.TypedExtensionProtocolOptions = map[string]envoy.Message{
			(&envoy.HTTPProtocolOptions{}).FullName(): &envoy.HTTPProtocolOptions{
				UseDownstreamProtocol: &envoy.UseDownstreamHTTPConfig{HTTP1: &envoy.HTTP1Options{}, HTTP2: &envoy.HTTP2Options{}},
			},
		}
	}
	return out, nil
}

// clusterMetadata is where Istio puts the names behind the
// destination_service* labels, and the service port.
func clusterMetadata(c *mesh.Cluster) *envoy.Metadata {
	fields := map[string]*envoy.Value{}
	if c.Port != 0 {
		fields[metaPort] = envoy.NumberValue(float64(c.Port))
	}
	if !c.Service.IsZero() {
		list := &envoy.ListValue{Values: []*envoy.Value{serviceValue(c.Service)}}
		for _, ref := range c.Also {
			list.Values = append(list.Values, serviceValue(ref))
		}
		fields[metaServices] = &envoy.Value{List: list}
	}
	if len(fields) == 0 {
		return nil
	}
	return &envoy.Metadata{FilterMetadata: map[string]*envoy.Struct{istioMetadata: {Fields: fields}}}
}

func serviceValue(ref mesh.ServiceRef) *envoy.Value {
	return &envoy.Value{Struct: &envoy.Struct{Fields: map[string]*envoy.Value{
		metaHost: envoy.StringValue(ref.Host),
		metaName: envoy.StringValue(ref.Name),
		metaNS:   envoy.StringValue(ref.Namespace),
	}}}
}

// describe is Istio's short description of the workload behind an endpoint:
// workload;namespace;canonical name;canonical revision;cluster.
func describe(w *mesh.Workload) string {
	return strings.Join([]string{w.Owner, w.Namespace, w.CanonicalName(), w.CanonicalRevision(), w.Cluster}, ";")
}

func encodeEndpoints(e *describedEndpoints) (envoy.Message, error) {
	if err := validEndpoints(e.ClusterEndpoints); err != nil {
		return nil, err
	}
	out := &envoy.ClusterLoadAssignment{ClusterName: e.Cluster}
	if len(e.Endpoints) == 0 {
		return out, nil
	}
	place := &envoy.LocalityLbEndpoints{}
	for i := range e.Endpoints {
		ep := &envoy.LbEndpoint{Endpoint: &envoy.Endpoint{Address: encodeAddress(e.Endpoints[i].Address)}}
		if e.Endpoints[i].Weight != 0 {
			ep.Weight = &envoy.UInt32Value{Value: e.Endpoints[i].Weight}
		}
		ep.Metadata = endpointMetadata(e.Endpoints[i].Workload, e.descriptions[i])
		place.LbEndpoints = append(place.LbEndpoints, ep)
	}
	out.Endpoints = []*envoy.LocalityLbEndpoints{place}
	return out, nil
}

func endpointMetadata(key, description string) *envoy.Metadata {
	if key == "" {
		return nil
	}
	filters := map[string]*envoy.Struct{
		ourMetadata: {Fields: map[string]*envoy.Value{metaWorkload: envoy.StringValue(key)}},
	}
	if description != "" {
		filters[istioMetadata] = &envoy.Struct{Fields: map[string]*envoy.Value{metaWorkload: envoy.StringValue(description)}}
	}
	return &envoy.Metadata{FilterMetadata: filters}
}

// workloadName is the resource name of a workload, Istio's uid:
// cluster/group/kind/namespace/name.
func workloadName(w *mesh.Workload) string { return w.Cluster + "//Pod/" + w.Key() }

func encodeWorkload(w *mesh.Workload) (envoy.Message, error) {
	if err := validWorkload(w); err != nil {
		return nil, err
	}
	out := &envoy.Workload{
		Name: w.Name, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount,
		CanonicalName: w.CanonicalName(), CanonicalRevision: w.CanonicalRevision(),
		WorkloadName: w.Owner, ClusterID: w.Cluster, UID: workloadName(w),
	}
	switch w.OwnerKind {
	case mesh.KindDeployment:
		out.WorkloadType = envoy.TypeDeployment
	case mesh.KindJob:
		out.WorkloadType = envoy.TypeJob
	default:
		out.WorkloadType = envoy.TypePod
	}
	if !w.Ready {
		out.Status = envoy.Unhealthy
	}
	for _, a := range [...]netip.Addr{w.IP, w.CaseIP, w.CaseIP6} {
		if a.IsValid() {
			out.Addresses = append(out.Addresses, a.AsSlice())
		}
	}
	own := &envoy.VitrineWorkload{
		MeshIP: w.IP.AsSlice(), CaseIP: w.CaseIP.AsSlice(), CaseIP6: w.CaseIP6.AsSlice(),
		OwnerKind: string(w.OwnerKind), Labels: w.Labels,
	}
	for i := range w.Ports {
		p := &w.Ports[i]
		own.Ports = append(own.Ports, &envoy.VitrinePort{
			Name: p.Name, Port: uint32(p.Port), Protocol: p.Protocol.String(), WirePort: uint32(p.WirePort),
		})
	}
	out.Extensions = []*envoy.Extension{{Name: ourMetadata, Config: own}}
	return out, nil
}

func encodeName(n *mesh.Name) (envoy.Message, error) {
	if err := validName(n); err != nil {
		return nil, err
	}
	info := &envoy.NameInfo{Registry: "Kubernetes", ShortName: n.Short, Namespace: n.Namespace}
	for _, a := range n.Addresses {
		info.IPs = append(info.IPs, a.String())
	}
	for i := range n.SRV {
		r := &n.SRV[i]
		info.SRV = append(info.SRV, &envoy.VitrineSRV{Service: r.Service, Target: r.Target, Port: uint32(r.Port)})
	}
	return &envoy.NameTable{NameInfo: info}, nil
}

func encodeAddress(a netip.AddrPort) *envoy.Address {
	return &envoy.Address{SocketAddress: &envoy.SocketAddress{
		Address: a.Addr().String(), PortValue: new(uint32(a.Port())),
	}}
}

// finish turns a message into a Resource.
func finish(k Kind, name string, m envoy.Message, err error) (Resource, error) {
	if err == nil {
		var body []byte
		if body, err = envoy.Marshal(m); err == nil {
			return Resource{Name: name, Version: versionOf(body), Body: body}, nil
		}
	}
	return Resource{}, fmt.Errorf("encode %v %q: %w", k, name, err)
}

// JoinNames makes one name table, as state of the world carries it, of the
// incremental resources of Kind NDS.
func JoinNames(names []Resource) *envoy.Any {
	table := &envoy.NameTable{Table: map[string]*envoy.NameInfo{}}
	for i := range names {
		one := &envoy.NameTable{}
		if err := envoy.Unmarshal(names[i].Body, one); err == nil && one.NameInfo != nil {
			table.Table[names[i].Name] = one.NameInfo
		}
	}
	out, err := envoy.Pack(table)
	if err != nil { // cannot be: every part was encoded before
		return &envoy.Any{TypeURL: NDS.TypeURL()}
	}
	return out
}
