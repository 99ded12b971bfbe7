package ads_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/vitrine-mesh/vitrine/internal/xds"
	"github.com/vitrine-mesh/vitrine/internal/xds/ads"
)

// TestDeltaOrderAndNames reads what the server sends with generated code: new
// things in the order clusters, endpoints, listeners, routes; things that are
// gone in the opposite order; only the names asked for.
func TestDeltaOrderAndNames(t *testing.T) {
	p, socket := servePlane(t, world(2), 0)
	d := newDeltaStream(t, socket, "envoy")
	d.ask(&discoverypb.DeltaDiscoveryRequest{TypeUrl: xds.CDS.TypeURL()})
	d.expect("cds +PassthroughCluster +outbound|80||svc-0000 +outbound|80||svc-0001")
	d.ack()
	names := []string{"outbound|80||svc-0000.default.svc.cluster.local", "outbound|80||svc-0002.default.svc.cluster.local"}
	d.ask(&discoverypb.DeltaDiscoveryRequest{TypeUrl: xds.EDS.TypeURL(), ResourceNamesSubscribe: names})
	d.expect("eds +outbound|80||svc-0000 -outbound|80||svc-0002")
	d.ack()
	d.ask(&discoverypb.DeltaDiscoveryRequest{TypeUrl: xds.LDS.TypeURL()})
	d.expect("lds +0.0.0.0_80")
	d.ack()
	d.ask(&discoverypb.DeltaDiscoveryRequest{TypeUrl: xds.RDS.TypeURL(), ResourceNamesSubscribe: []string{"80"}})
	d.expect("rds +80")
	d.ack()
	p.set(world(3))
	d.expect("cds +outbound|80||svc-0002")
	ackLater := d.last
	d.expect("eds +outbound|80||svc-0002")
	d.ack()
	p.set(world(4)) // waits for the answer that is missing, and so do the routes
	p.set(world(1))
	d.ask(&discoverypb.DeltaDiscoveryRequest{
		TypeUrl: ackLater.GetTypeUrl(), ResponseNonce: ackLater.GetNonce(), ErrorDetail: &statuspb.Status{Code: 3, Message: "no"},
	})
	d.expect("rds +80")
	d.ack()
	d.expect("eds -outbound|80||svc-0002")
	d.ack()
	d.expect("cds -outbound|80||svc-0001 -outbound|80||svc-0002")
	d.ack()
	eventually(t, "the refusal is over", func() bool { ts := typeOf(p, xds.CDS); return ts.InSync() })
	if want := `pilot_total_xds_rejects{type="cds"} 1` + "\n"; !strings.Contains(metricsOf(t, p), want) {
		t.Errorf("metrics lack %q", want)
	}
	d.ask(&discoverypb.DeltaDiscoveryRequest{TypeUrl: xds.EDS.TypeURL(), ResourceNamesSubscribe: names[:1]}) // asks again
	d.expect("eds +outbound|80||svc-0000")
}

// TestNewClustersAreComplete: what refers to a new cluster is told when the proxy has
// asked for its endpoints and has got them, as Envoy answers requests with an error
// until then.
func TestNewClustersAreComplete(t *testing.T) {
	name := func(i int) string { return fmt.Sprintf("outbound|80||svc-%04d.default.svc.cluster.local", i) }
	p, socket := servePlane(t, world(1), 0)
	d := newDeltaStream(t, socket, "envoy")
	w := newWorldStream(t, socket)
	var endpoints *discoverypb.DiscoveryRequest
	for _, k := range []xds.Kind{xds.CDS, xds.EDS, xds.LDS, xds.RDS} {
		q := &discoverypb.DeltaDiscoveryRequest{TypeUrl: k.TypeURL()}
		r := &discoverypb.DiscoveryRequest{Node: &corepb.Node{Id: "old"}, TypeUrl: k.TypeURL()}
		switch k {
		case xds.EDS:
			q.ResourceNamesSubscribe, r.ResourceNames = []string{name(0)}, []string{name(0)}
		case xds.RDS:
			q.ResourceNamesSubscribe, r.ResourceNames = []string{"80"}, []string{"80"}
		default:
		}
		d.ask(q)
		d.receive()
		d.ack()
		w.ask(r)
		w.receive()
		w.ack()
		if k == xds.EDS {
			r.ResponseNonce, r.VersionInfo = w.last.GetNonce(), w.last.GetVersionInfo()
			endpoints = r
		}
	}
	p.set(world(2))
	d.expect("cds +outbound|80||svc-0001")
	d.ack()
	d.ask(&discoverypb.DeltaDiscoveryRequest{TypeUrl: xds.EDS.TypeURL(), ResourceNamesSubscribe: []string{name(1)}})
	d.expect("eds +outbound|80||svc-0001")
	d.ack()
	d.expect("rds +80")
	d.ack()
	w.expect("cds PassthroughCluster svc-0000 svc-0001")
	w.ack()
	endpoints.ResourceNames = []string{name(0), name(1)}
	w.ask(endpoints)
	w.expect("eds svc-0000 svc-0001")
	w.ack()
	w.expect("rds 80")
}

// TestStateOfTheWorld reads the same with the older protocol.
func TestStateOfTheWorld(t *testing.T) {
	p, socket := servePlane(t, world(2), 0)
	w := newWorldStream(t, socket)
	// round asks, if there is a question, takes a response of count resources and
	// accepts it.
	round := func(r *discoverypb.DiscoveryRequest, count int) *discoverypb.DiscoveryResponse {
		t.Helper()
		if r != nil {
			w.ask(r)
		}
		m := w.receive()
		if len(m.GetResources()) != count {
			t.Fatalf("%s: %d resources, want %d", m.GetTypeUrl(), len(m.GetResources()), count)
		}
		w.ask(&discoverypb.DiscoveryRequest{
			TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce(), VersionInfo: m.GetVersionInfo(), ResourceNames: r.GetResourceNames(),
		})
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
	_, socket := servePlane(t, world(3), 0)
	w := newWorldStream(t, socket)
	w.ask(&discoverypb.DiscoveryRequest{Node: &corepb.Node{Id: "odd"}, TypeUrl: xds.CDS.TypeURL(), ResponseNonce: "77", VersionInfo: "old"})
	w.expect("cds PassthroughCluster svc-0000 svc-0001 svc-0002")
}

// TestWorldTakesAwayLast: clusters and endpoints stay until the listeners and
// routes that refer to them are gone and that is acknowledged.
func TestWorldTakesAwayLast(t *testing.T) {
	p, socket := servePlane(t, world(2), 0)
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

// TestStuckClient: one that answers nothing delays nobody and is cut off. The limit
// is what the other one has for an answer when the machine is busy.
func TestStuckClient(t *testing.T) {
	p, socket := servePlane(t, world(500), 10*time.Second)
	d := newDeltaStream(t, socket, "stuck")
	for k := range xds.Kinds {
		d.ask(&discoverypb.DeltaDiscoveryRequest{TypeUrl: k.TypeURL()})
	}
	d.receive() // it is known now, so that its end can be seen
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
