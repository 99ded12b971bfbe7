package xds

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	managerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcppb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var byValue = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

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

func checkRoundTrip(t *testing.T, cfg *mesh.NodeConfig) *Resources {
	t.Helper()
	r, err := Encode(cfg)
	if err != nil {
		t.Fatalf("encode: %v\n%+v", err, cfg)
	}
	back, err := Decode(r)
	if err != nil {
		t.Fatalf("decode: %v\n%+v", err, cfg)
	}
	if !reflect.DeepEqual(cfg, back) {
		t.Fatalf("decode(encode(x)) is not x (-want +got):\n%s", cmp.Diff(cfg, back, byValue))
	}
	return r
}

func TestDecodeIsInverseOfEncode(t *testing.T) {
	for seed := range uint64(2000) {
		checkRoundTrip(t, newGenerator(seed).config())
	}
}

func FuzzRoundTrip(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { checkRoundTrip(t, newGenerator(seed).config()) })
}

// FuzzDecode wants that no resource panics, and that what is accepted can be
// encoded and means the same then.
func FuzzDecode(f *testing.F) {
	r, err := Encode(newGenerator(5).config())
	if err != nil {
		f.Fatal(err)
	}
	for k := range Kinds {
		for _, res := range r[k] {
			f.Add(byte(k), res.Name, res.Body)
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, name string, body []byte) {
		s := newStore()
		if err := s.put(Kind(kind)%Kinds, name, "1", body); err != nil {
			return
		}
		cfg := s.config()
		again, err := Encode(cfg)
		if err != nil {
			t.Fatalf("accepted but cannot be encoded: %v", err)
		}
		back, err := Decode(again)
		if err != nil || !reflect.DeepEqual(cfg, back) {
			t.Fatalf("accepted but not stable: %v\n%s", err, cmp.Diff(cfg, back, byValue))
		}
	})
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

type validated interface {
	proto.Message
	ValidateAll() error
}

// TestEnvoyAcceptsWhatIsEncoded runs the validation that is generated from
// Envoy's own rules, on resources and on the filters inside.
func TestEnvoyAcceptsWhatIsEncoded(t *testing.T) {
	r := checkRoundTrip(t, plausible())
	for k, fresh := range map[Kind]func() validated{
		CDS: func() validated { return &clusterpb.Cluster{} },
		EDS: func() validated { return &endpointpb.ClusterLoadAssignment{} },
		LDS: func() validated { return &listenerpb.Listener{} },
		RDS: func() validated { return &routepb.RouteConfiguration{} },
	} {
		for _, res := range r[k] {
			m := fresh()
			if err := proto.Unmarshal(res.Body, m); err != nil {
				t.Errorf("%v %s: %v", k, res.Name, err)
				continue
			}
			if err := m.ValidateAll(); err != nil {
				t.Errorf("%v %s: %v", k, res.Name, err)
			}
			if l, ok := m.(*listenerpb.Listener); ok {
				checkFilters(t, l)
			}
		}
	}
}

func checkFilters(t *testing.T, l *listenerpb.Listener) {
	t.Helper()
	for _, chain := range append(l.GetFilterChains(), l.GetDefaultFilterChain()) {
		for _, f := range chain.GetFilters() {
			var m validated = &managerpb.HttpConnectionManager{}
			if f.GetTypedConfig().MessageIs(&tcppb.TcpProxy{}) {
				m = &tcppb.TcpProxy{}
			}
			if err := anypb.UnmarshalTo(f.GetTypedConfig(), m, proto.UnmarshalOptions{}); err != nil {
				t.Errorf("listener %s: %v", l.GetName(), err)
			} else if err := m.ValidateAll(); err != nil {
				t.Errorf("listener %s: %v", l.GetName(), err)
			}
		}
	}
}

// TestDumpIsEnvoys reads the dump with the generated ConfigDump message.
func TestDumpIsEnvoys(t *testing.T) {
	cfg := plausible()
	b, err := Dump(cfg)
	if err != nil {
		t.Fatal(err)
	}
	dump := &adminpb.ConfigDump{}
	if err := protojson.Unmarshal(b, dump); err != nil {
		t.Fatalf("not a ConfigDump: %v\n%s", err, b)
	}
	got := map[string]int{}
	for _, c := range dump.GetConfigs() {
		m, err := c.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *adminpb.ClustersConfigDump:
			got["clusters"] = len(m.GetDynamicActiveClusters())
		case *adminpb.ListenersConfigDump:
			got["listeners"] = len(m.GetDynamicListeners())
		case *adminpb.RoutesConfigDump:
			got["routes"] = len(m.GetDynamicRouteConfigs())
		case *adminpb.EndpointsConfigDump:
			got["endpoints"] = len(m.GetDynamicEndpointConfigs())
		}
	}
	want := map[string]int{"clusters": len(cfg.Clusters), "listeners": len(cfg.Listeners), "routes": len(cfg.Routes), "endpoints": len(cfg.Endpoints)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("resources in the dump (-want +got):\n%s", diff)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		break_ func(*mesh.NodeConfig)
		want   string
	}{
		{"order", func(c *mesh.NodeConfig) { slices.Reverse(c.Routes) }, `routes "80" after "allow_any": names must ascend`},
		{"no name", func(c *mesh.NodeConfig) { c.Names[0].Host = "" }, `name 0 has no name`},
		{"udp", func(c *mesh.NodeConfig) { c.Listeners[0].Protocol = mesh.ProtocolUDP }, `encode lds "0.0.0.0_80": protocol udp cannot be listened for`},
		{"no routes", func(c *mesh.NodeConfig) { c.Listeners[0].RouteConfig = "" }, `encode lds "0.0.0.0_80": protocol http with routes "": requests of outbound listeners need routes, others must have none`},
		{"weights", func(c *mesh.NodeConfig) { c.Routes[1].VirtualHosts[0].Routes[0].Clusters[0].Weight = 0 }, `encode rds "allow_any": virtual host "allow_any": route 0 "allow_any": sum of weights is 0, want 1 to 4294967295`},
		{"domain twice", func(c *mesh.NodeConfig) { c.Routes[0].VirtualHosts[0].Domains = []string{"a", "a"} }, `encode rds "80": virtual host "web.default.svc.cluster.local:80": domain "a" is empty or occurs twice`},
		{"not UTF-8", func(c *mesh.NodeConfig) { c.Names[0].Short = "\xff" }, `encode nds "web.default.svc.cluster.local": encode istio.networking.nds.v1.NameTable: string is not UTF-8`},
	} {
		cfg := plausible()
		c.break_(cfg)
		if _, err := Encode(cfg); err == nil || err.Error() != c.want {
			t.Errorf("%s: error %v, want %s", c.name, err, c.want)
		}
	}
}

// TestEncoderSharesWork wants the same memory for what did not change, and the
// same result as a fresh Encode.
func TestEncoderSharesWork(t *testing.T) {
	e := NewEncoder()
	first, err := e.Encode(plausible())
	if err != nil {
		t.Fatal(err)
	}
	changed := plausible()
	changed.Workloads[0].Labels["version"] = "v2" // also changes the endpoint's description
	second, err := e.Encode(changed)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := Encode(changed)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fresh, second); diff != "" {
		t.Errorf("shared and fresh encoding differ:\n%s", diff)
	}
	for k := range Kinds {
		for i := range first[k] {
			same := &first[k][i].Body[0] == &second[k][i].Body[0]
			if want := k != WDS && k != EDS; same != want {
				t.Errorf("%v %s: encoded anew %v, want %v", k, first[k][i].Name, !same, !want)
			}
		}
	}
	if first.Fingerprint() == second.Fingerprint() {
		t.Error("different configurations have one fingerprint")
	}
}

func TestDecodeRefusesWhatItDoesNotSupport(t *testing.T) {
	route := func(change func(*routepb.Route)) []byte {
		rc := &routepb.RouteConfiguration{}
		if err := proto.Unmarshal(mustEncode(t, plausible())[RDS][0].Body, rc); err != nil {
			t.Fatal(err)
		}
		change(rc.GetVirtualHosts()[0].GetRoutes()[0])
		b, err := proto.Marshal(rc)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	body := route(func(r *routepb.Route) { r.RequestHeadersToRemove = []string{"x"} })
	s := newStore()
	err := s.put(RDS, "80", "v", body)
	want := `rds "80": envoy.config.route.v3.RouteConfiguration field 2: envoy.config.route.v3.VirtualHost field 3: envoy.config.route.v3.Route: field 12 is not supported`
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if err := s.put(RDS, "81", "v", route(func(*routepb.Route) {})); err == nil || err.Error() != `rds "81": not supported: it calls itself "80"` {
		t.Errorf("a resource under another name: %v", err)
	}
}

func mustEncode(t *testing.T, cfg *mesh.NodeConfig) *Resources {
	t.Helper()
	r, err := Encode(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestStoreGoesBack(t *testing.T) {
	s := newStore()
	load := func(cfg *mesh.NodeConfig) {
		r := mustEncode(t, cfg)
		for k := range Kinds {
			for name := range s.entries[k] {
				if !slices.ContainsFunc(r[k], func(res Resource) bool { return res.Name == name }) {
					s.remove(k, name)
				}
			}
			for _, res := range r[k] {
				if err := s.put(k, res.Name, res.Version, res.Body); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for seed := range uint64(300) {
		g := newGenerator(seed)
		a, b := g.config(), g.config()
		load(a)
		s.commit()
		seen := s.seen
		if s.seen != mustEncode(t, a).Fingerprint() {
			t.Fatal("fingerprint of what was received differs from the sender's")
		}
		load(b)
		if diff := cmp.Diff(b, s.config(), byValue); diff != "" {
			t.Fatalf("seed %d: second configuration (-want +got):\n%s", seed, diff)
		}
		s.rollback()
		if diff := cmp.Diff(a, s.config(), byValue); diff != "" || s.seen != seen {
			t.Fatalf("seed %d: after rollback (-want +got):\n%s", seed, diff)
		}
	}
}

func TestLastGoodFile(t *testing.T) {
	path := t.TempDir() + "/last"
	s := newStore()
	r := mustEncode(t, plausible())
	for k := range Kinds {
		for _, res := range r[k] {
			if err := s.put(k, res.Name, "v-"+res.Version, res.Body); err != nil {
				t.Fatal(err)
			}
		}
	}
	sum, err := saveLastGood(path, s.config(), s.committedAfter, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	back, again, err := loadLastGood(path)
	if err != nil || again != sum {
		t.Fatalf("load: %v", err)
	}
	if diff := cmp.Diff(plausible(), back.config(), byValue); diff != "" {
		t.Errorf("loaded (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(s.versions(CDS), back.versions(CDS)); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
	whole := readFile(t, path)
	for cut := range whole {
		if cut%97 == 0 || len(whole)-cut < 40 {
			writeFile(t, path, whole[:cut])
			if s, _, err := loadLastGood(path); err == nil || s != nil {
				t.Fatalf("a file cut at %d of %d was accepted", cut, len(whole))
			}
		}
	}
	for at := 0; at < len(whole); at += 61 {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 0x40
		writeFile(t, path, damaged)
		if s, _, err := loadLastGood(path); err == nil || s != nil {
			t.Fatalf("a file with byte %d damaged was accepted", at)
		}
	}
}
