package control

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/goleak"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rewrite writes testdata anew; look at the difference before committing it.
var rewrite = flag.Bool("rewrite", false, "write testdata anew")

var byValue = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

func newPlane(t *testing.T, statePath string) *Plane {
	t.Helper()
	p, err := New(Options{Net: 77, StatePath: statePath, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func service(ns, name string, ports ...mesh.ServicePort) mesh.Service {
	return mesh.Service{
		ServiceRef: mesh.ServiceRef{Host: name + "." + ns + ".svc.cluster.local", Name: name, Namespace: ns},
		Selector:   map[string]string{"app": name},
		Ports:      ports,
	}
}

func workload(ns, app, suffix string, ready bool, ports ...mesh.WorkloadPort) mesh.Workload {
	return mesh.Workload{
		Name: app + "-" + suffix, Namespace: ns, Owner: app, OwnerKind: mesh.KindDeployment,
		Labels: map[string]string{"app": app, "version": "v1"}, Ports: ports, Ready: ready,
	}
}

// shop is a mesh with every kind of service.
func shop() ([]mesh.Service, []mesh.Workload) {
	http := mesh.ServicePort{Name: "http", Port: 80, TargetPort: 8080, Protocol: mesh.ProtocolHTTP}
	published := http
	published.Publish = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:8080")}
	headless := service("shop", "db", mesh.ServicePort{Name: "tcp", Port: 5432, Protocol: mesh.ProtocolTCP})
	headless.Headless = true
	services := []mesh.Service{
		service("shop", "web", published),
		service("shop", "cart", mesh.ServicePort{Name: "any", Port: 80, TargetPort: 9000}, mesh.ServicePort{Name: "dns", Port: 53, Protocol: mesh.ProtocolUDP}),
		service("shop", "cache", mesh.ServicePort{Name: "redis", Port: 6379, Protocol: mesh.ProtocolTCP}),
		headless,
		service("other", "web", http),
	}
	db := workload("shop", "db", "0", true, mesh.WorkloadPort{Port: 5432})
	db.OwnerKind = mesh.KindStatefulSet
	return services, []mesh.Workload{
		workload("shop", "web", "1", true, mesh.WorkloadPort{Name: "http", Port: 8080}),
		workload("shop", "web", "2", false, mesh.WorkloadPort{Name: "http", Port: 8080}),
		workload("shop", "cart", "1", true, mesh.WorkloadPort{Name: "x", Port: 9000}),
		workload("shop", "cache", "1", true), // does not declare 6379
		db,
		workload("other", "web", "1", true, mesh.WorkloadPort{Name: "http", Port: 8080}),
	}
}

// snapshot publishes what was set.
func snapshot(p *Plane) *mesh.Snapshot {
	p.publish()
	return p.Snapshot()
}

func fill(p *Plane, services []mesh.Service, workloads []mesh.Workload) {
	p.SetServices("files", services)
	for _, w := range workloads {
		p.SetWorkload(w)
	}
}

// render writes a NodeConfig as text, one thing a line.
func render(cfg *mesh.NodeConfig) string {
	var b strings.Builder
	for _, l := range cfg.Listeners {
		fmt.Fprintf(&b, "listener %s %s dir=%d bind=%v publish=%v %s routes=%q cluster=%q\n",
			l.Name, l.Address, l.Direction, l.Bind, l.Publish, l.Protocol, l.RouteConfig, l.Cluster)
	}
	for _, r := range cfg.Routes {
		for _, vh := range r.VirtualHosts {
			fmt.Fprintf(&b, "route %s | %s | %s -> %s weight %d timeout %v\n", r.Name, vh.Name, strings.Join(vh.Domains, " "),
				vh.Routes[0].Clusters[0].Cluster, vh.Routes[0].Clusters[0].Weight, vh.Routes[0].Timeout)
		}
	}
	for _, c := range cfg.Clusters {
		fmt.Fprintf(&b, "cluster %s type=%d service=%s port=%d timeout=%v\n", c.Name, c.Type, c.Service.Host, c.Port, c.ConnectTimeout)
	}
	for _, e := range cfg.Endpoints {
		fmt.Fprintf(&b, "endpoints %s", e.Cluster)
		for _, ep := range e.Endpoints {
			fmt.Fprintf(&b, " %s=%s", ep.Address, ep.Workload)
		}
		b.WriteByte('\n')
	}
	for _, n := range cfg.Names {
		fmt.Fprintf(&b, "name %s ns=%s short=%q %v\n", n.Host, n.Namespace, n.Short, n.Addresses)
	}
	return b.String()
}

// TestView compares the whole configuration of one proxy with testdata/view.txt.
func TestView(t *testing.T) {
	p := newPlane(t, "")
	fill(p, first(shop()), second(shop()))
	cfg, err := View(snapshot(p), "shop/web-1")
	if err != nil {
		t.Fatal(err)
	}
	if *rewrite {
		if err := os.WriteFile("testdata/view.txt", []byte(render(cfg)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/view.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(render(cfg), "\n")); diff != "" {
		t.Errorf("view of shop/web-1 (-want +got):\n%s\n%s", diff, render(cfg))
	}
	if len(cfg.Workloads) != 6 {
		t.Errorf("%d workloads, want all 6", len(cfg.Workloads))
	}
	if _, err := View(p.Snapshot(), "shop/none"); err == nil || err.Error() != "workload shop/none is not in the mesh (snapshot 1)" {
		t.Errorf("view of an unknown workload: %v", err)
	}
}

func first[A, B any](a A, _ B) A  { return a }
func second[A, B any](_ A, b B) B { return b }

// TestPublishNotReady: members of a service that publishes those that are not
// ready find each other by name and address before any of them is.
func TestPublishNotReady(t *testing.T) {
	peers := service("shop", "etcd", mesh.ServicePort{Name: "tcp-peer", Port: 2380, Protocol: mesh.ProtocolTCP})
	peers.Headless, peers.PublishNotReady = true, true
	clients := service("shop", "clients", mesh.ServicePort{Name: "tcp", Port: 2379, TargetPort: 2380, Protocol: mesh.ProtocolTCP})
	clients.Selector = peers.Selector
	p := newPlane(t, "")
	var members []mesh.Workload
	for i := range 2 {
		w := workload("shop", "etcd", strconv.Itoa(i), false, mesh.WorkloadPort{Port: 2380})
		w.OwnerKind = mesh.KindStatefulSet
		members = append(members, w)
	}
	fill(p, []mesh.Service{peers, clients}, members)
	s := snapshot(p)
	cfg, err := View(s, "shop/etcd-0")
	if err != nil {
		t.Fatal(err)
	}
	a, b := &s.Workloads[0], &s.Workloads[1]
	wantEndpoints := []mesh.ClusterEndpoints{
		{Cluster: "outbound|2379||clients.shop.svc.cluster.local"},
		{Cluster: "outbound|2380||etcd.shop.svc.cluster.local", Endpoints: []mesh.Endpoint{
			{Address: netip.AddrPortFrom(a.IP, 15100), Workload: "shop/etcd-0"},
			{Address: netip.AddrPortFrom(b.IP, 15100), Workload: "shop/etcd-1"},
		}},
	}
	if diff := cmp.Diff(wantEndpoints, cfg.Endpoints, byValue); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
	wantNames := []mesh.Name{
		{Host: "clients.shop.svc.cluster.local", Namespace: "shop", Short: "clients", Addresses: []netip.Addr{s.Services[0].VIP4, s.Services[0].VIP6}},
		{Host: "etcd-0.etcd.shop.svc.cluster.local", Namespace: "shop", Addresses: []netip.Addr{a.CaseIP, a.CaseIP6}},
		{Host: "etcd-1.etcd.shop.svc.cluster.local", Namespace: "shop", Addresses: []netip.Addr{b.CaseIP, b.CaseIP6}},
		{Host: "etcd.shop.svc.cluster.local", Namespace: "shop", Short: "etcd", Addresses: []netip.Addr{a.CaseIP, a.CaseIP6, b.CaseIP, b.CaseIP6}},
	}
	if diff := cmp.Diff(wantNames, cfg.Names, byValue); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

// TestOneNumberTwoTransports: a port of UDP takes nothing away from the TCP port of
// the same number, whether that is declared or added by a Service.
func TestOneNumberTwoTransports(t *testing.T) {
	dns := service("shop", "dns", mesh.ServicePort{Name: "tcp-dns", Port: 53, Protocol: mesh.ProtocolTCP})
	udp := mesh.WorkloadPort{Name: "dns", Port: 53, Protocol: mesh.ProtocolUDP}
	for name, ports := range map[string][]mesh.WorkloadPort{
		"declared": {udp, {Name: "dns-tcp", Port: 53, Protocol: mesh.ProtocolTCP}},
		"added":    {udp},
	} {
		p := newPlane(t, "")
		fill(p, []mesh.Service{dns}, []mesh.Workload{workload("shop", "dns", "0", true, ports...)})
		cfg, err := View(snapshot(p), "shop/dns-0")
		if err != nil {
			t.Fatal(err)
		}
		wire := netip.AddrPortFrom(p.Snapshot().Workloads[0].IP, 15101)
		if got := cfg.Endpoints[0].Endpoints; len(got) != 1 || got[0].Address != wire {
			t.Errorf("%s: endpoints %v, want %v", name, got, wire)
		}
		i := slices.IndexFunc(cfg.Listeners, func(l mesh.Listener) bool { return l.Direction == mesh.Inbound })
		if i < 0 || cfg.Listeners[i].Address != wire {
			t.Errorf("%s: listeners %v, want one inbound at %v", name, cfg.Listeners, wire)
		}
	}
}

// TestOrderOfArrivalDoesNotMatter permutes sources, services and workloads.
func TestOrderOfArrivalDoesNotMatter(t *testing.T) {
	services, workloads := shop()
	var want *mesh.NodeConfig
	for seed := range uint64(50) {
		p := newPlane(t, "")
		for i, w := range workloads { // addresses depend on arrival, so they are fixed
			workloads[i].IP = mesh.IP(77, mesh.Index(10+i))
			_ = w
		}
		for _, svc := range services {
			p.vips.take(svc.Host)
		}
		r := rand.New(rand.NewPCG(seed, 7))
		for _, i := range r.Perm(len(workloads)) {
			p.SetWorkload(workloads[i])
		}
		for _, i := range r.Perm(len(services)) {
			p.SetServices("source "+services[i].Host, services[i:i+1])
		}
		got, err := View(snapshot(p), "shop/cart-1")
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = got
		}
		if !reflect.DeepEqual(want, got) {
			t.Fatalf("seed %d gives another configuration:\n%s", seed, cmp.Diff(want, got, byValue))
		}
		shared, err := p.View("shop/cart-1")
		if err != nil || !reflect.DeepEqual(want, shared) {
			t.Fatalf("Plane.View differs from View (%v):\n%s", err, cmp.Diff(want, shared, byValue))
		}
	}
}

// TestUnconcernedProxyKeepsItsListeners changes what does not concern a proxy.
func TestUnconcernedProxyKeepsItsListeners(t *testing.T) {
	p := newPlane(t, "")
	services, workloads := shop()
	fill(p, services, workloads)
	before, err := View(snapshot(p), "shop/cart-1")
	if err != nil {
		t.Fatal(err)
	}
	again := workload("shop", "web", "1", true, mesh.WorkloadPort{Name: "http", Port: 8080})
	version := p.Snapshot().Version
	p.SetWorkload(again) // the same as before
	p.SetServices("files", services)
	if got := snapshot(p).Version; got != version {
		t.Errorf("setting the same again publishes version %d after %d", got, version)
	}
	p.SetWorkload(workload("shop", "web", "2", true, mesh.WorkloadPort{Name: "http", Port: 8080}))
	after, err := View(snapshot(p), "shop/cart-1")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(before.Listeners, after.Listeners) || !reflect.DeepEqual(before.Routes, after.Routes) ||
		!reflect.DeepEqual(before.Clusters, after.Clusters) || !reflect.DeepEqual(before.Names, after.Names) {
		t.Error("a workload that became ready changes more than endpoints and workloads of another proxy")
	}
	changed := 0
	for i := range before.Endpoints {
		if !reflect.DeepEqual(before.Endpoints[i], after.Endpoints[i]) {
			changed++
		}
	}
	if changed != 1 {
		t.Errorf("%d endpoint sets changed, want 1", changed)
	}
}

func TestDebounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlane(t, "")
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() {
			if err := p.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		defer func() { cancel(); done.Wait() }()
		at := func(d time.Duration, want uint64) {
			t.Helper()
			<-time.NewTimer(d).C
			synctest.Wait()
			if got := p.Snapshot().Version; got != want {
				t.Fatalf("version %d, want %d", got, want)
			}
		}
		at(time.Minute, 0) // nothing happens without a change
		p.SetWorkload(workload("a", "x", "1", true))
		at(9*time.Millisecond, 0)
		at(2*time.Millisecond, 1) // quiet for 10 ms
		for i := range 199 {      // never quiet: a change every 5 ms
			p.SetWorkload(workload("a", "x", "1", i%2 != 0))
			<-time.NewTimer(5 * time.Millisecond).C
		}
		synctest.Wait()
		if got := p.Snapshot().Version; got != 1 {
			t.Fatalf("version %d before the maximum wait, want 1", got)
		}
		p.SetWorkload(workload("a", "x", "2", true))
		at(5*time.Millisecond, 1)
		p.SetWorkload(workload("a", "x", "3", true))
		at(5*time.Millisecond, 2) // the maximum wait is over
	})
}

func TestWatchSkipsToTheLast(t *testing.T) {
	p := newPlane(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p.SetWorkload(workload("a", "x", "0", true))
	p.publish()
	var got []uint64
	for s := range p.Watch(ctx) {
		got = append(got, s.Version)
		switch s.Version {
		case 1:
			for i := range 5 {
				p.SetWorkload(workload("a", "x", strconv.Itoa(i+1), true))
				p.publish()
			}
		case 6:
			cancel()
		}
	}
	if diff := cmp.Diff([]uint64{1, 6}, got); diff != "" {
		t.Errorf("versions seen (-want +got):\n%s", diff)
	}
}

// metricsOf is what a plane exposes.
func metricsOf(t *testing.T, p *Plane) string {
	t.Helper()
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(p.Metrics(), promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if answer.Code != http.StatusOK {
		t.Fatal(answer.Body)
	}
	return answer.Body.String()
}

func TestMetricNames(t *testing.T) {
	p := newPlane(t, "")
	services, workloads := shop()
	fill(p, services, workloads)
	p.publish()
	text := metricsOf(t, p)
	for _, want := range []string{
		"pilot_services 5\n", `pilot_inbound_updates{type="svc"} 1` + "\n", `pilot_push_triggers{type="workload"} 6` + "\n",
		`istio_build{component="pilot",tag="unknown"} 1` + "\n", "istiod_uptime_seconds ", "pilot_debounce_time_count 1\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %q:\n%s", want, text)
		}
	}
}
