package xds

import (
	"bytes"
	"net/netip"
	"reflect"
	"slices"
	"testing"

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

// decode reads resources as the client does that receives them all at once.
func decode(r *Resources) (*mesh.NodeConfig, error) {
	s := newStore()
	for k := range Kinds {
		for i := range r[k] {
			if err := s.put(k, r[k][i].Name, r[k][i].Version, r[k][i].Body); err != nil {
				return nil, err
			}
		}
	}
	return s.config(), nil
}

func checkRoundTrip(t *testing.T, cfg *mesh.NodeConfig) *Resources {
	t.Helper()
	r, err := Encode(cfg)
	if err != nil {
		t.Fatalf("encode: %v\n%+v", err, cfg)
	}
	back, err := decode(r)
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
		back, err := decode(again)
		if err != nil || !reflect.DeepEqual(cfg, back) {
			t.Fatalf("accepted but not stable: %v\n%s", err, cmp.Diff(cfg, back, byValue))
		}
	})
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
// TestDocumentsAreEnvoys: go-control-plane reads what is shown, under the names
// of the configuration.
func TestDocumentsAreEnvoys(t *testing.T) {
	cfg := plausible()
	documents, err := Documents(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range documents {
		envelope := &anypb.Any{}
		if err := protojson.Unmarshal(d.JSON, envelope); err != nil {
			t.Fatalf("%v %s: %v\n%s", d.Kind, d.Name, err, d.JSON)
		}
		if envelope.GetTypeUrl() != d.Kind.TypeURL() {
			t.Errorf("%v %s is a %s", d.Kind, d.Name, envelope.GetTypeUrl())
		}
		got = append(got, d.Kind.String()+" "+d.Name)
	}
	var want []string
	for _, c := range cfg.Clusters {
		want = append(want, "cds "+c.Name)
	}
	for _, e := range cfg.Endpoints {
		want = append(want, "eds "+e.Cluster)
	}
	for _, l := range cfg.Listeners {
		want = append(want, "lds "+l.Name)
	}
	for _, r := range cfg.Routes {
		want = append(want, "rds "+r.Name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("documents (-want +got):\n%s", diff)
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

// TestDecodeRefusesTwoClusters: HTTP and the rest of one port of a workload go to
// one program.
func TestDecodeRefusesTwoClusters(t *testing.T) {
	inbound := mesh.Listener{
		Name: "127.77.0.2_15100", Direction: mesh.Inbound, Address: netip.MustParseAddrPort("127.77.0.2:15100"), Bind: true, Cluster: "inbound|1||",
	}
	body := mustEncode(t, &mesh.NodeConfig{Listeners: []mesh.Listener{inbound}})[LDS][0].Body
	if err := newStore().put(LDS, inbound.Name, "v", body); err != nil {
		t.Fatal(err)
	}
	body = bytes.Clone(body)
	i := bytes.LastIndex(body, []byte(inbound.Cluster)) // of the last chain
	copy(body[i:], "inbound|3||")
	want := `lds "127.77.0.2_15100": not supported: filter chains that lead to "inbound|1||" and "inbound|3||"`
	if err := newStore().put(LDS, inbound.Name, "v", body); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
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
