package xds

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// generator makes valid NodeConfigs of any shape.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) generator { return generator{rand.New(rand.NewPCG(seed, 1))} }

func (g generator) text() string {
	const letters = "abz09.-|:_/é ß\"<\\\n"
	runes := []rune(letters)
	out := make([]rune, g.IntN(12))
	for i := range out {
		out[i] = runes[g.IntN(len(runes))]
	}
	return string(out)
}

// names are ascending, different and not empty.
func (g generator) names() []string {
	set := map[string]bool{}
	for range g.IntN(5) {
		set["n"+g.text()] = true
	}
	out := make([]string, 0, len(set))
	for n := range set {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

func (g generator) addr() netip.Addr {
	var b [16]byte
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	switch g.IntN(4) {
	case 0:
		return netip.AddrFrom16(b)
	case 1:
		return netip.AddrFrom16(netip.AddrFrom4([4]byte(b[:4])).As16()) // an IPv4 address in IPv6
	case 2:
		return netip.IPv4Unspecified()
	}
	return netip.AddrFrom4([4]byte(b[:4]))
}

func (g generator) addrPort() netip.AddrPort {
	return netip.AddrPortFrom(g.addr(), uint16(g.Uint32()>>g.IntN(32)))
}

func (g generator) maybe() netip.Addr {
	if g.IntN(3) == 0 {
		return netip.Addr{}
	}
	return g.addr()
}

func (g generator) duration() time.Duration {
	return time.Duration(g.Int64() >> g.IntN(64))
}

func (g generator) config() *mesh.NodeConfig {
	cfg := &mesh.NodeConfig{}
	for _, name := range g.names() {
		l := mesh.Listener{
			Name: name, Direction: mesh.Direction(g.IntN(2)), Address: g.addrPort(), Bind: g.IntN(2) == 0,
			Protocol: mesh.Protocol(g.IntN(int(mesh.ProtocolUDP))), Publish: g.IntN(2) == 0,
		}
		l.ProxyProtocol = l.Direction == mesh.Inbound && !l.Publish && g.IntN(2) == 0
		if g.IntN(8) == 0 {
			l.Name = catchAll
		}
		if l.Direction == mesh.Outbound && (l.Protocol == mesh.ProtocolAuto || l.Protocol.IsHTTP()) {
			l.RouteConfig = "r" + g.text()
		}
		if l.Direction == mesh.Inbound || !l.Protocol.IsHTTP() {
			l.Cluster = "c" + g.text()
		}
		cfg.Listeners = append(cfg.Listeners, l)
	}
	slices.SortFunc(cfg.Listeners, func(a, b mesh.Listener) int { return strings.Compare(a.Name, b.Name) })
	cfg.Listeners = slices.CompactFunc(cfg.Listeners, func(a, b mesh.Listener) bool { return a.Name == b.Name })
	for _, name := range g.names() {
		cfg.Routes = append(cfg.Routes, g.routes(name))
	}
	for _, name := range g.names() {
		c := mesh.Cluster{
			Name: name, Type: mesh.ClusterType(g.IntN(4)), ConnectTimeout: g.duration(), Port: uint16(g.Uint32()),
			Service: mesh.ServiceRef{Host: g.text(), Name: g.text(), Namespace: g.text()},
		}
		if c.Type == mesh.ClusterLocal {
			c.Port |= 1
		}
		for !c.Service.IsZero() && g.IntN(3) == 0 {
			c.Also = append(c.Also, mesh.ServiceRef{Host: g.text(), Name: g.text(), Namespace: g.text()})
		}
		cfg.Clusters = append(cfg.Clusters, c)
	}
	keys := []string{"", "unknown/pod"}
	for _, ns := range g.names() {
		w := mesh.Workload{
			Name: "w" + g.text(), Namespace: ns, Owner: g.text(), OwnerKind: mesh.WorkloadKind(g.text()), ServiceAccount: g.text(),
			Cluster: g.text(), IP: g.maybe(), CaseIP: g.maybe(), CaseIP6: g.maybe(), Ready: g.IntN(2) == 0,
		}
		for range g.IntN(3) {
			w.Ports = append(w.Ports, mesh.WorkloadPort{
				Name: g.text(), Port: uint16(g.Uint32()), Protocol: mesh.Protocol(g.IntN(int(mesh.ProtocolUDP) + 1)), WirePort: uint16(g.Uint32()),
			})
		}
		for range g.IntN(3) {
			if w.Labels == nil {
				w.Labels = map[string]string{}
			}
			w.Labels[g.text()] = g.text()
		}
		cfg.Workloads = append(cfg.Workloads, w)
		keys = append(keys, w.Key())
	}
	slices.SortFunc(cfg.Workloads, func(a, b mesh.Workload) int { return strings.Compare(a.Key(), b.Key()) })
	for _, name := range g.names() {
		e := mesh.ClusterEndpoints{Cluster: name}
		for range g.IntN(4) {
			e.Endpoints = append(e.Endpoints, mesh.Endpoint{Address: g.addrPort(), Workload: keys[g.IntN(len(keys))], Weight: g.Uint32() >> g.IntN(33)})
		}
		cfg.Endpoints = append(cfg.Endpoints, e)
	}
	for _, host := range g.names() {
		n := mesh.Name{Host: host, Namespace: g.text(), Short: g.text()}
		for range g.IntN(3) {
			n.Addresses = append(n.Addresses, g.addr())
		}
		for range g.IntN(3) {
			n.SRV = append(n.SRV, mesh.SRV{Service: g.text(), Target: g.text(), Port: uint16(g.Uint32())})
		}
		cfg.Names = append(cfg.Names, n)
	}
	return cfg
}

func (g generator) routes(name string) mesh.RouteConfig {
	rc := mesh.RouteConfig{Name: name}
	for i, vh := range g.names() {
		host := mesh.VirtualHost{Name: vh}
		for j := range 1 + g.IntN(3) {
			host.Domains = append(host.Domains, fmt.Sprintf("%s%d.%d", g.text(), i, j))
		}
		for range g.IntN(3) {
			r := mesh.Route{Name: g.text(), Prefix: g.text(), Timeout: g.duration()}
			for range g.IntN(3) {
				r.Clusters = append(r.Clusters, mesh.WeightedCluster{Cluster: "c" + g.text(), Weight: g.Uint32() >> (2 + g.IntN(31))})
			}
			r.Clusters = append(r.Clusters, mesh.WeightedCluster{Cluster: "last", Weight: 1})
			host.Routes = append(host.Routes, r)
		}
		rc.VirtualHosts = append(rc.VirtualHosts, host)
	}
	return rc
}

// plausible is a configuration as View makes it: also Envoy must accept it.
func plausible() *mesh.NodeConfig {
	svc := mesh.ServiceRef{Host: "web.default.svc.cluster.local", Name: "web", Namespace: "default"}
	w := mesh.Workload{
		Name: "web-1", Namespace: "default", Owner: "web-v1", OwnerKind: mesh.KindDeployment, Cluster: "Kubernetes", Ready: true,
		Labels: map[string]string{"app": "web", "version": "v1"}, IP: mesh.IP(77, 2), CaseIP: mesh.CaseIP4(2), CaseIP6: mesh.CaseIP6(2),
		Ports: []mesh.WorkloadPort{{Name: "http", Port: 8080, Protocol: mesh.ProtocolHTTP, WirePort: 15100}},
	}
	return &mesh.NodeConfig{
		Listeners: []mesh.Listener{
			{Name: "0.0.0.0_80", Address: netip.MustParseAddrPort("0.0.0.0:80"), Protocol: mesh.ProtocolHTTP, RouteConfig: "80"},
			{Name: "127.77.0.2_15100", Direction: mesh.Inbound, Address: netip.AddrPortFrom(w.IP, 15100), Bind: true, Protocol: mesh.ProtocolGRPC, Cluster: "inbound|8080||"},
			{Name: "127.77.0.2_15101", Direction: mesh.Inbound, Address: netip.AddrPortFrom(w.IP, 15101), Bind: true, Cluster: "inbound|8080||"},
			{Name: "2001:2::1_3306", Address: netip.MustParseAddrPort("[2001:2::1]:3306"), Protocol: mesh.ProtocolTCP, Cluster: "outbound|80||" + svc.Host},
			{Name: "240.240.0.1_9000", Address: netip.MustParseAddrPort("240.240.0.1:9000"), RouteConfig: "80", Cluster: "outbound|80||" + svc.Host},
			{Name: "240.240.0.1_9443", Address: netip.MustParseAddrPort("240.240.0.1:9443"), Protocol: mesh.ProtocolTLS, Cluster: "outbound|80||" + svc.Host},
			{Name: catchAll, Address: netip.MustParseAddrPort("0.0.0.0:15001"), RouteConfig: mesh.RouteAllowAny, Cluster: mesh.PassthroughCluster},
		},
		Routes: []mesh.RouteConfig{
			{Name: "80", VirtualHosts: []mesh.VirtualHost{{
				Name: svc.Host + ":80", Domains: []string{svc.Host, svc.Host + ":80"},
				Routes: []mesh.Route{{Name: "default", Prefix: "/", Timeout: time.Second, Clusters: []mesh.WeightedCluster{
					{Cluster: "outbound|80||" + svc.Host, Weight: 90}, {Cluster: mesh.BlackHoleCluster, Weight: 10},
				}}},
			}}},
			{Name: mesh.RouteAllowAny, VirtualHosts: []mesh.VirtualHost{{
				Name: mesh.RouteAllowAny, Domains: []string{"*"},
				Routes: []mesh.Route{{Name: mesh.RouteAllowAny, Prefix: "/", Clusters: []mesh.WeightedCluster{{Cluster: mesh.PassthroughCluster, Weight: 1}}}},
			}}},
		},
		Clusters: []mesh.Cluster{
			{Name: mesh.BlackHoleCluster, Type: mesh.ClusterBlackHole, ConnectTimeout: time.Second},
			{Name: mesh.PassthroughCluster, Type: mesh.ClusterOriginalDst, ConnectTimeout: time.Second},
			{Name: "inbound|8080||", Type: mesh.ClusterLocal, Port: 8080, Service: svc, ConnectTimeout: time.Second},
			{Name: "outbound|80||" + svc.Host, Port: 80, Service: svc, ConnectTimeout: 10 * time.Second},
		},
		Endpoints: []mesh.ClusterEndpoints{{Cluster: "outbound|80||" + svc.Host, Endpoints: []mesh.Endpoint{
			{Address: netip.AddrPortFrom(w.IP, 15100), Workload: w.Key(), Weight: 3},
		}}},
		Workloads: []mesh.Workload{w},
		Names:     []mesh.Name{{Host: svc.Host, Namespace: "default", Short: "web", Addresses: []netip.Addr{mesh.ServiceVIP4(1)}}},
	}
}
