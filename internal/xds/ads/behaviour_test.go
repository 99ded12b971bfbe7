package ads_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/vitrine-mesh/vitrine/internal/control"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/xds"
	"github.com/vitrine-mesh/vitrine/internal/xds/ads"
)

func socketPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "xds.sock")
}

// typeOf finds the state of one type of the only proxy.
func typeOf(p *plane, k xds.Kind) ads.TypeStatus {
	for _, st := range p.Status() {
		for _, ts := range st.Types {
			if ts.Kind == k {
				return ts
			}
		}
	}
	return ads.TypeStatus{}
}

func metricsOf(t *testing.T, p *plane) string {
	t.Helper()
	families, err := p.Metrics().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// TestPushTimes: each response written is timed, and each announced change of
// each proxy.
func TestPushTimes(t *testing.T) {
	socket := socketPath(t)
	p := newPlane(t, world(2), 0)
	p.serve(t, socket)
	n := startClient(t, socket, "node", "")
	n.wants(t, world(2))
	eventually(t, "accepted", func() bool { ts := typeOf(p, xds.RDS); return ts.Acked != "" && ts.InSync() })
	if text := metricsOf(t, p); !strings.Contains(text, "pilot_proxy_queue_time_count 0\n") {
		t.Error("the first configuration counts as an announced change")
	}
	p.set(world(3))
	n.wants(t, world(3))
	eventually(t, "timed", func() bool {
		text := metricsOf(t, p)
		return strings.Contains(text, "pilot_proxy_queue_time_count 1\n") &&
			strings.Contains(text, `pilot_xds_push_time_count{type="eds"} 2`+"\n")
	})
}

// TestRefusedConfiguration: apply refuses; the proxy keeps the one before, the
// control plane shows why, and the next good one is accepted.
func TestRefusedConfiguration(t *testing.T) {
	socket, lastGood := socketPath(t), filepath.Join(t.TempDir(), "last")
	p := newPlane(t, world(2), 0)
	p.serve(t, socket)
	n := startClient(t, socket, "node", lastGood)
	n.wants(t, world(2))
	eventually(t, "accepted", func() bool { ts := typeOf(p, xds.RDS); return ts.Acked != "" && ts.InSync() })
	good := n.Status().Version

	refusal := errors.New("listener 0.0.0.0_80: no such thing")
	n.refuse.Store(&refusal)
	p.set(world(3))
	n.wants(t, world(3))
	eventually(t, "the refusal shows", func() bool { return typeOf(p, xds.RDS).LastError == refusal.Error() })
	if ts := typeOf(p, xds.RDS); ts.InSync() || ts.Acked != good || ts.ErrorAt.IsZero() {
		t.Errorf("status of routes %+v, want %s accepted and the error", ts, good)
	}
	if got := n.Status(); got.Version != good || got.LastError != refusal.Error() || !got.Connected {
		t.Errorf("client status %+v, want version %s and the error", got, good)
	}
	if want := `pilot_total_xds_rejects{type="rds"} 1` + "\n"; !strings.Contains(metricsOf(t, p), want) {
		t.Errorf("metrics lack %q:\n%s", want, metricsOf(t, p))
	}
	n.refuse.Store(nil)
	p.set(world(4))
	n.wants(t, world(4))
	eventually(t, "accepted again", func() bool { ts := typeOf(p, xds.RDS); return ts.InSync() })

	refusal = errors.New("again")
	n.refuse.Store(&refusal)
	p.set(world(5))
	n.wants(t, world(5))
	n.stop() // saves
	n = startClient(t, socketPath(t), "node", lastGood)
	n.wants(t, world(4)) // the last good one, not the last one
}

// foreign is a control plane made of generated code.
type foreign struct {
	discoverypb.UnimplementedAggregatedDiscoveryServiceServer
	serve func(discoverypb.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error
}

func (f *foreign) DeltaAggregatedResources(s discoverypb.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return f.serve(s)
}

func serveForeign(t *testing.T, socket string, f *foreign) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	discoverypb.RegisterAggregatedDiscoveryServiceServer(server, f)
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(ln) })
	t.Cleanup(func() { server.Stop(); done.Wait() })
}

// TestOneBadResource: of a response with a bad resource the others count.
func TestOneBadResource(t *testing.T) {
	socket := socketPath(t)
	answers := make(chan *discoverypb.DeltaDiscoveryRequest, 100)
	resources, err := xds.Encode(world(3))
	if err != nil {
		t.Fatal(err)
	}
	serveForeign(t, socket, &foreign{serve: func(s discoverypb.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
		m := &discoverypb.DeltaDiscoveryResponse{TypeUrl: xds.CDS.TypeURL(), Nonce: "x"}
		for i, r := range resources[xds.CDS] {
			body := r.Body
			if i == 2 {
				body = append(slices.Clone(body), 0xfa, 0x3f, 0) // field 1023
			}
			m.Resources = append(m.Resources, &discoverypb.Resource{
				Name: r.Name, Version: r.Version, Resource: &anypb.Any{TypeUrl: m.GetTypeUrl(), Value: body},
			})
		}
		if err := s.Send(m); err != nil {
			return err
		}
		for {
			r, err := s.Recv()
			if err != nil {
				return nil //nolint:nilerr // the client went away
			}
			answers <- r
		}
	}})
	n := startClient(t, socket, "node", "")
	want := world(3)
	bad := want.Clusters[2].Name
	if diff := cmp.Diff(slices.Delete(want.Clusters, 2, 3), n.next(t).Clusters, byValue); diff != "" {
		t.Errorf("clusters (-want +got):\n%s", diff)
	}
	for r := range answers {
		if r.GetResponseNonce() != "x" {
			continue
		}
		want := fmt.Sprintf("cds %q: envoy.config.cluster.v3.Cluster: field 1023 is not supported", bad)
		if got := r.GetErrorDetail().GetMessage(); got != want {
			t.Errorf("refused with %q, want %q", got, want)
		}
		return
	}
}

// TestServerRestart: the client goes on, comes back, and nothing is sent twice.
func TestServerRestart(t *testing.T) {
	socket := socketPath(t)
	p := newPlane(t, world(3), 0)
	stop := p.serve(t, socket)
	n := startClient(t, socket, "node", "")
	n.wants(t, world(3))
	stop()
	eventually(t, "the loss shows", func() bool { st := n.Status(); return !st.Connected && st.LastError != "" })
	if st := n.Status(); st.Version == "" {
		t.Errorf("status %+v after the loss, want the version in force", st)
	}
	p = newPlane(t, world(3), 0)
	p.serve(t, socket)
	eventually(t, "connected again", func() bool { return n.Status().Connected })
	eventually(t, "in sync", func() bool { ts := typeOf(p, xds.NDS); return ts.Acked != "" && ts.InSync() })
	if want := `pilot_xds_config_size_bytes_sum{type="cds"} 0` + "\n"; !strings.Contains(metricsOf(t, p), want) {
		t.Errorf("clusters were sent again: metrics lack %q:\n%s", want, metricsOf(t, p))
	}
	p.set(world(4))
	n.wants(t, world(4)) // and not world(3) again
}

// TestStartWithoutControlPlane: the last good configuration serves, and the
// control plane then sends only what changed.
func TestStartWithoutControlPlane(t *testing.T) {
	socket, lastGood := socketPath(t), filepath.Join(t.TempDir(), "last")
	p := newPlane(t, world(3), 0)
	stop := p.serve(t, socket)
	n := startClient(t, socket, "node", lastGood)
	n.wants(t, world(3))
	n.stop()
	stop()

	begin := time.Now()
	n = startClient(t, socket, "node", lastGood)
	n.wants(t, world(3))
	if took := time.Since(begin); took > time.Second {
		t.Errorf("start without control plane takes %v, want at most 1 s", took)
	}
	if st := n.Status(); st.Connected || st.Version == "" {
		t.Errorf("status %+v, want not connected, with a version", st)
	}
	p = newPlane(t, world(4), 0)
	p.serve(t, socket)
	n.wants(t, world(4))
	n.stop()

	if err := os.WriteFile(lastGood, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	n = startClient(t, socket, "node", lastGood)
	n.wants(t, world(4)) // from the control plane
}

// TestConnectedButUnknown: the control plane is there but does not know the
// proxy yet; the last good configuration serves meanwhile.
func TestConnectedButUnknown(t *testing.T) {
	socket, lastGood := socketPath(t), filepath.Join(t.TempDir(), "last")
	p := newPlane(t, world(2), 0)
	p.serve(t, socket)
	n := startClient(t, socket, "node", lastGood)
	n.wants(t, world(2))
	n.stop()
	p.set(nil)
	n = startClient(t, socket, "node", lastGood)
	n.wants(t, world(2))
	p.set(world(3))
	n.wants(t, world(3))
}

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
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
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
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
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

// TestStuckClient: one that answers nothing delays nobody and is cut off.
func TestStuckClient(t *testing.T) {
	socket := socketPath(t)
	p := newPlane(t, world(500), 2*time.Second)
	p.serve(t, socket)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
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

// TestConverged: who answers is waited for, and who does not is named.
func TestConverged(t *testing.T) {
	socket := socketPath(t)
	p := newPlane(t, world(5), 0)
	p.serve(t, socket)
	n := startClient(t, socket, "healthy", "")
	n.wants(t, world(5))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for i := range 3 {
		p.set(world(6 + i))
		if err := p.Converged(ctx); err != nil {
			t.Fatal(err)
		}
		for _, st := range p.Status() {
			for _, ty := range st.Types {
				if !ty.InSync() || ty.Kind == xds.NDS && ty.Resources != 6+i {
					t.Errorf("change %d: %+v", i, ty)
				}
			}
		}
	}
	s, err := generated(t, socket).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&discoverypb.DeltaDiscoveryRequest{Node: &corepb.Node{Id: "deaf"}, TypeUrl: xds.CDS.TypeURL()}); err != nil {
		t.Fatal(err)
	}
	m, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	soon, over := context.WithTimeout(ctx, 50*time.Millisecond)
	defer over()
	err = p.Converged(soon)
	if want := "wait for proxies deaf: context deadline exceeded"; err == nil || err.Error() != want {
		t.Errorf("beside one that does not answer: %v, want %s", err, want)
	}
	if err := s.Send(&discoverypb.DeltaDiscoveryRequest{TypeUrl: xds.CDS.TypeURL(), ResponseNonce: m.GetNonce()}); err != nil {
		t.Fatal(err)
	}
	if err := p.Converged(ctx); err != nil {
		t.Errorf("after its answer: %v", err)
	}
}

// TestThousandServices measures full and small pushes of 1,000 services with
// 2,000 endpoints.
func TestThousandServices(t *testing.T) {
	plane := newControl(t, 1000, 2000)
	cfg, err := plane.View("default/svc-0000-0")
	if err != nil {
		t.Fatal(err)
	}
	socket := socketPath(t)
	p := newPlane(t, cfg, 0)
	p.serve(t, socket)
	begin := time.Now()
	n := startClient(t, socket, "node", "")
	got := n.next(t)
	full := time.Since(begin)
	if diff := cmp.Diff(cfg, got, byValue); diff != "" {
		t.Errorf("applied (-want +got):\n%s", diff)
	}
	sizes := metricsOf(t, p)

	plane.RemoveWorkload("default/svc-0500-1")
	waitVersion(t, plane, 2)
	changed, err := plane.View("default/svc-0000-0")
	if err != nil {
		t.Fatal(err)
	}
	begin = time.Now()
	p.set(changed)
	got = n.next(t)
	delta := time.Since(begin)
	if diff := cmp.Diff(changed, got, byValue); diff != "" {
		t.Errorf("applied (-want +got):\n%s", diff)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("full push %v, one endpoint less %v, heap %d MB\n%s", full, delta, m.HeapAlloc>>20, sums(sizes))
	if delta > 5*time.Second || full > 10*time.Second {
		t.Errorf("full push %v (at most 10 s), small push %v (at most 5 s on a busy machine)", full, delta)
	}
	before, after := sum(t, sizes, "eds"), sum(t, metricsOf(t, p), "eds")
	if after-before <= 0 || after-before > 10<<10 {
		t.Errorf("one endpoint less sends %g bytes of endpoints, want at most 10 KiB", after-before)
	}
}

func sums(metrics string) string {
	var out []string
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "pilot_xds_config_size_bytes_sum") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

func sum(t *testing.T, metrics, kind string) float64 {
	t.Helper()
	for line := range strings.Lines(metrics) {
		var v float64
		if n, err := fmt.Sscanf(line, `pilot_xds_config_size_bytes_sum{type="`+kind+`"} %g`, &v); err == nil && n == 1 {
			return v
		}
	}
	t.Fatalf("no size of %s in\n%s", kind, metrics)
	return 0
}

func newControl(t *testing.T, services, workloads int) *control.Plane {
	t.Helper()
	p, err := control.New(control.Options{Net: 77, Log: quiet(t)})
	if err != nil {
		t.Fatal(err)
	}
	svcs := make([]mesh.Service, 0, services)
	for i := range services {
		name := fmt.Sprintf("svc-%04d", i)
		svcs = append(svcs, mesh.Service{
			ServiceRef: mesh.ServiceRef{Name: name, Namespace: "default"}, Selector: map[string]string{"app": name},
			Ports: []mesh.ServicePort{{Name: "http", Port: 80, TargetPort: 8080, Protocol: mesh.ProtocolHTTP}},
		})
	}
	p.SetServices("test", svcs)
	for i := range workloads {
		p.SetWorkload(replica(i, services, true))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Errorf("control plane: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	waitVersion(t, p, 1)
	return p
}

func replica(i, services int, ready bool) mesh.Workload {
	name := fmt.Sprintf("svc-%04d", i%services)
	return mesh.Workload{
		Name: fmt.Sprintf("%s-%d", name, i/services), Namespace: "default", Owner: name, OwnerKind: mesh.KindDeployment,
		Labels: map[string]string{"app": name, "version": "v1"}, Ready: ready,
		Ports: []mesh.WorkloadPort{{Name: "http", Port: 8080, Protocol: mesh.ProtocolHTTP}},
	}
}

func waitVersion(t *testing.T, p *control.Plane, version uint64) {
	t.Helper()
	eventually(t, fmt.Sprintf("version %d", version), func() bool { return p.Snapshot().Version >= version })
}

// TestConfigurationStorm changes workloads as fast as 1,000 times a second for
// three seconds, with proxies connected: all of them end with the last state,
// and memory does not grow with the number of changes.
func TestConfigurationStorm(t *testing.T) {
	const services, proxies, rounds = 50, 4, 30
	plane := newControl(t, services, services)
	server, err := ads.NewServer(ads.ServerOptions{
		Config: func(id string) (*mesh.NodeConfig, error) { return plane.View(id) }, Log: quiet(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	socket := socketPath(t)
	p := &following{Server: server}
	p.run(t, socket, plane)
	var nodes []*node
	for i := range proxies {
		nodes = append(nodes, startClient(t, socket, fmt.Sprintf("default/svc-%04d-0", i), ""))
	}
	for _, n := range nodes {
		n.next(t)
	}
	goroutines := runtime.NumGoroutine()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for r := range rounds {
		for i := range 100 {
			plane.SetWorkload(replica((r*100+i)%services, services, (r+i)%2 == 0))
		}
		<-tick.C
	}
	for i := range services {
		plane.SetWorkload(replica(i, services, i != 7))
	}
	plane.RemoveWorkload("default/svc-0009-0")
	last := time.Now()
	for _, n := range nodes {
		eventually(t, "the last state arrives", func() bool {
			for {
				select {
				case cfg := <-n.applied:
					if converged(cfg) {
						return true
					}
				default:
					return false
				}
			}
		})
	}
	t.Logf("all proxies converged %v after the last change; %d versions for %d changes", time.Since(last), plane.Snapshot().Version, rounds*100)
	if now := runtime.NumGoroutine(); now > goroutines+10 {
		t.Errorf("%d goroutines after the storm, %d before", now, goroutines)
	}
}

func converged(cfg *mesh.NodeConfig) bool {
	if len(cfg.Workloads) != 49 {
		return false
	}
	for _, e := range cfg.Endpoints {
		gone := strings.Contains(e.Cluster, "svc-0007.") || strings.Contains(e.Cluster, "svc-0009.")
		if (len(e.Endpoints) == 0) != gone {
			return false
		}
	}
	return true
}

// following is a server that follows a control plane.
type following struct{ *ads.Server }

func (p *following) run(t *testing.T, socket string, from *control.Plane) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := p.Serve(ctx, ln); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	done.Go(func() {
		for range from.Watch(ctx) {
			p.Notify()
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
}
