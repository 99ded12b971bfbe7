package ads_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3" // to read what is sent
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3" // the same
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3" // the same
	_ "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"    // the same
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/vitrine-mesh/vitrine/internal/xds"
	"github.com/vitrine-mesh/vitrine/internal/xds/ads"
)

// generated connects with generated code, as Envoy or grpc would.
func generated(t *testing.T, socket string) discoverypb.AggregatedDiscoveryServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return discoverypb.NewAggregatedDiscoveryServiceClient(conn)
}

// TestDeltaOrderAndNames reads what the server sends with generated code: new
// things in the order clusters, endpoints, listeners, routes; things that are
// gone in the opposite order; only the names asked for.
func TestDeltaOrderAndNames(t *testing.T) {
	socket := socketPath(t)
	p := newPlane(t, world(2), 0)
	p.serve(t, socket)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := generated(t, socket).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(r *discoverypb.DeltaDiscoveryRequest) {
		t.Helper()
		if err := s.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	var last *discoverypb.DeltaDiscoveryResponse
	get := func() string {
		t.Helper()
		if last, err = s.Recv(); err != nil {
			t.Fatal(err)
		}
		k, _ := xds.KindOf(last.GetTypeUrl())
		out := []string{k.String()}
		for _, r := range last.GetResources() {
			out = append(out, "+"+strings.TrimSuffix(r.GetName(), ".default.svc.cluster.local"))
		}
		for _, name := range last.GetRemovedResources() {
			out = append(out, "-"+strings.TrimSuffix(name, ".default.svc.cluster.local"))
		}
		return strings.Join(out, " ")
	}
	ack := func() {
		ask(&discoverypb.DeltaDiscoveryRequest{TypeUrl: last.GetTypeUrl(), ResponseNonce: last.GetNonce()})
	}
	expect := func(want string) {
		t.Helper()
		if got := get(); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	ask(&discoverypb.DeltaDiscoveryRequest{Node: &corepb.Node{Id: "envoy"}, TypeUrl: xds.CDS.TypeURL()})
	expect("cds +PassthroughCluster +outbound|80||svc-0000 +outbound|80||svc-0001")
	ack()
	names := []string{"outbound|80||svc-0000.default.svc.cluster.local", "outbound|80||svc-0002.default.svc.cluster.local"}
	ask(&discoverypb.DeltaDiscoveryRequest{TypeUrl: xds.EDS.TypeURL(), ResourceNamesSubscribe: names})
	expect("eds +outbound|80||svc-0000 -outbound|80||svc-0002")
	ack()
	ask(&discoverypb.DeltaDiscoveryRequest{TypeUrl: xds.LDS.TypeURL()})
	expect("lds +0.0.0.0_80")
	ack()
	ask(&discoverypb.DeltaDiscoveryRequest{TypeUrl: xds.RDS.TypeURL(), ResourceNamesSubscribe: []string{"80"}})
	expect("rds +80")
	ack()
	p.set(world(3))
	expect("cds +outbound|80||svc-0002")
	ackLater := last
	expect("eds +outbound|80||svc-0002")
	ack()
	expect("rds +80")
	ack()
	p.set(world(4)) // waits for the answer that is missing
	p.set(world(1))
	ask(&discoverypb.DeltaDiscoveryRequest{
		TypeUrl: ackLater.GetTypeUrl(), ResponseNonce: ackLater.GetNonce(), ErrorDetail: &statuspb.Status{Code: 3, Message: "no"},
	})
	expect("rds +80")
	ack()
	expect("eds -outbound|80||svc-0002")
	ack()
	expect("cds -outbound|80||svc-0001 -outbound|80||svc-0002")
	ack()
	eventually(t, "the refusal is over", func() bool { ts := typeOf(p, xds.CDS); return ts.InSync() })
	if want := `pilot_total_xds_rejects{type="cds"} 1` + "\n"; !strings.Contains(metricsOf(t, p), want) {
		t.Errorf("metrics lack %q", want)
	}
	ask(&discoverypb.DeltaDiscoveryRequest{TypeUrl: xds.EDS.TypeURL(), ResourceNamesSubscribe: names[:1]}) // asks again
	expect("eds +outbound|80||svc-0000")
}

// TestStateOfTheWorld reads the same with the older protocol.
func TestStateOfTheWorld(t *testing.T) {
	socket := socketPath(t)
	p := newPlane(t, world(2), 0)
	p.serve(t, socket)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := generated(t, socket).StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	round := func(r *discoverypb.DiscoveryRequest, count int) *discoverypb.DiscoveryResponse {
		t.Helper()
		if r != nil {
			if err := s.Send(r); err != nil {
				t.Fatal(err)
			}
		}
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if len(m.GetResources()) != count {
			t.Fatalf("%s: %d resources, want %d", m.GetTypeUrl(), len(m.GetResources()), count)
		}
		if err := s.Send(&discoverypb.DiscoveryRequest{
			TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce(), VersionInfo: m.GetVersionInfo(), ResourceNames: r.GetResourceNames(),
		}); err != nil {
			t.Fatal(err)
		}
		return m
	}
	round(&discoverypb.DiscoveryRequest{Node: &corepb.Node{Id: "old"}, TypeUrl: xds.CDS.TypeURL()}, 3)
	round(&discoverypb.DiscoveryRequest{TypeUrl: xds.NDS.TypeURL()}, 1)
	names := []string{"outbound|80||svc-0001.default.svc.cluster.local"}
	one := round(&discoverypb.DiscoveryRequest{TypeUrl: xds.EDS.TypeURL(), ResourceNames: names}, 1)
	both := slices.Concat(names, []string{"outbound|80||svc-0000.default.svc.cluster.local"})
	two := round(&discoverypb.DiscoveryRequest{TypeUrl: xds.EDS.TypeURL(), ResourceNames: both, ResponseNonce: one.GetNonce(), VersionInfo: one.GetVersionInfo()}, 2)
	if one.GetVersionInfo() == two.GetVersionInfo() {
		t.Error("two different lists have one version")
	}
	p.set(world(3))
	if m := round(nil, 4); m.GetTypeUrl() != xds.CDS.TypeURL() {
		t.Errorf("first of a change is %s, want clusters", m.GetTypeUrl())
	}
	if m := round(nil, 1); m.GetTypeUrl() != xds.NDS.TypeURL() {
		t.Errorf("then comes %s, want names: endpoints asked for by name did not change", m.GetTypeUrl())
	}
}

// TestNonceOfAnEarlierStream: a client that repeats its last nonce after a
// reconnection gets what it asks for, not an empty list.
func TestNonceOfAnEarlierStream(t *testing.T) {
	socket := socketPath(t)
	p := newPlane(t, world(3), 0)
	p.serve(t, socket)
	w := newWorldStream(t, socket)
	w.ask(&discoverypb.DiscoveryRequest{Node: &corepb.Node{Id: "odd"}, TypeUrl: xds.CDS.TypeURL(), ResponseNonce: "77", VersionInfo: "old"})
	w.expect("cds PassthroughCluster svc-0000 svc-0001 svc-0002")
}

// TestWorldTakesAwayLast: clusters and endpoints stay until the listeners and
// routes that refer to them are gone and that is acknowledged.
func TestWorldTakesAwayLast(t *testing.T) {
	socket := socketPath(t)
	p := newPlane(t, world(2), 0)
	p.serve(t, socket)
	w := newWorldStream(t, socket)
	for _, k := range []xds.Kind{xds.CDS, xds.EDS, xds.LDS, xds.RDS} {
		w.ask(&discoverypb.DiscoveryRequest{Node: &corepb.Node{Id: "envoy"}, TypeUrl: k.TypeURL()})
		w.expect(map[xds.Kind]string{
			xds.CDS: "cds PassthroughCluster svc-0000 svc-0001", xds.EDS: "eds svc-0000 svc-0001", xds.LDS: "lds 0.0.0.0_80", xds.RDS: "rds 80",
		}[k])
		w.ack()
	}
	cfg := world(3)
	cfg.Clusters = slices.Delete(cfg.Clusters, 2, 3) // svc-0001 goes, svc-0002 comes
	cfg.Endpoints = slices.Delete(cfg.Endpoints, 1, 2)
	cfg.Routes[0].VirtualHosts = slices.Delete(cfg.Routes[0].VirtualHosts, 1, 2)
	p.set(cfg)
	w.expect("cds PassthroughCluster svc-0000 svc-0001 svc-0002")
	w.ack()
	w.expect("eds svc-0000 svc-0001 svc-0002")
	w.ack()
	w.expect("rds 80")
	w.ack()
	w.expect("eds svc-0000 svc-0002")
	w.ack()
	w.expect("cds PassthroughCluster svc-0000 svc-0002")
	w.ack()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Converged(ctx); err != nil {
		t.Error(err)
	}
}

// worldStream is a client of the older protocol, in generated code.
type worldStream struct {
	t      *testing.T
	stream discoverypb.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	last   *discoverypb.DiscoveryResponse
}

func newWorldStream(t *testing.T, socket string) *worldStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	s, err := generated(t, socket).StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &worldStream{t: t, stream: s}
}

func (w *worldStream) ask(r *discoverypb.DiscoveryRequest) {
	w.t.Helper()
	if err := w.stream.Send(r); err != nil {
		w.t.Fatal(err)
	}
}

func (w *worldStream) ack() {
	w.t.Helper()
	w.ask(&discoverypb.DiscoveryRequest{TypeUrl: w.last.GetTypeUrl(), ResponseNonce: w.last.GetNonce(), VersionInfo: w.last.GetVersionInfo()})
}

// expect receives a response: its type and the names of its resources.
func (w *worldStream) expect(want string) {
	w.t.Helper()
	var err error
	if w.last, err = w.stream.Recv(); err != nil {
		w.t.Fatalf("instead of %q: %v", want, err)
	}
	k, _ := xds.KindOf(w.last.GetTypeUrl())
	got := []string{k.String()}
	for _, r := range w.last.GetResources() {
		m, err := r.UnmarshalNew()
		if err != nil {
			w.t.Fatal(err)
		}
		name := ""
		switch m := m.(type) {
		case interface{ GetClusterName() string }:
			name = m.GetClusterName()
		case interface{ GetName() string }:
			name = m.GetName()
		}
		name = strings.TrimPrefix(name, "outbound|80||")
		got = append(got, strings.TrimSuffix(name, ".default.svc.cluster.local"))
	}
	if got := strings.Join(got, " "); got != want {
		w.t.Fatalf("got %q, want %q", got, want)
	}
}

// TestStuckClient: one that answers nothing delays nobody and is cut off.
func TestStuckClient(t *testing.T) {
	socket := socketPath(t)
	p := newPlane(t, world(500), 2*time.Second)
	p.serve(t, socket)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := generated(t, socket).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for k := range xds.Kinds {
		if err := s.Send(&discoverypb.DeltaDiscoveryRequest{Node: &corepb.Node{Id: "stuck"}, TypeUrl: k.TypeURL()}); err != nil {
			t.Fatal(err)
		}
	}
	n := startClient(t, socket, "healthy", "")
	n.wants(t, world(500))
	begin := time.Now()
	for i := range 5 {
		p.set(world(480 + i))
		if got := n.next(t); len(got.Names) != 480+i || len(got.Clusters) != 481+i {
			t.Fatalf("%d names and %d clusters, want %d services", len(got.Names), len(got.Clusters), 480+i)
		}
	}
	t.Logf("5 changes beside a stuck client take %v", time.Since(begin))
	eventually(t, "the stuck client is cut off", func() bool {
		return !slices.ContainsFunc(p.Status(), func(st ads.ProxyStatus) bool { return st.Node == "stuck" })
	})
	if want := "vitrine_xds_stuck_proxies_total 1\n"; !strings.Contains(metricsOf(t, p), want) {
		t.Errorf("metrics lack %q", want)
	}
	if !n.Status().Connected {
		t.Error("the healthy client was cut off too")
	}
}
