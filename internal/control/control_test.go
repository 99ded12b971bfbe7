package control

import (
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

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
		fmt.Fprintf(&b, "listener %s %s dir=%d bind=%v publish=%v header=%v %s routes=%q cluster=%q\n",
			l.Name, l.Address, l.Direction, l.Bind, l.Publish, l.ProxyProtocol, l.Protocol, l.RouteConfig, l.Cluster)
	}
	for _, r := range cfg.Routes {
		for _, vh := range r.VirtualHosts {
			fmt.Fprintf(&b, "route %s | %s | %s -> %s weight %d timeout %v\n", r.Name, vh.Name, strings.Join(vh.Domains, " "),
				vh.Routes[0].Clusters[0].Cluster, vh.Routes[0].Clusters[0].Weight, vh.Routes[0].Timeout)
		}
	}
	for _, c := range cfg.Clusters {
		fmt.Fprintf(&b, "cluster %s type=%d service=%s port=%d timeout=%v", c.Name, c.Type, c.Service.Host, c.Port, c.ConnectTimeout)
		for _, also := range c.Also {
			fmt.Fprintf(&b, " also=%s", also.Host)
		}
		b.WriteByte('\n')
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

// TestServiceRecords: each port with a name has records, by its own transport; of a
// headless service each pod has them, with the port that its program listens on.
func TestServiceRecords(t *testing.T) {
	ports := []mesh.ServicePort{
		{Name: "HTTP", Port: 80, TargetName: "web"},
		{Name: "dns", Port: 53, TargetPort: 5353, Protocol: mesh.ProtocolUDP},
		{Port: 81},
	}
	virtual, headless := service("shop", "web", ports...), service("shop", "pods", ports...)
	headless.Headless, headless.Selector = true, virtual.Selector
	p := newPlane(t, "")
	fill(p, []mesh.Service{virtual, headless}, []mesh.Workload{
		workload("shop", "web", "a", true, mesh.WorkloadPort{Name: "web", Port: 8080}),
		workload("shop", "web", "b", true, mesh.WorkloadPort{Name: "web", Port: 9090}),
		workload("shop", "web", "c", true), // has no port "web"
		workload("shop", "web", "d", false, mesh.WorkloadPort{Name: "web", Port: 8080}),
	})
	s := snapshot(p)
	cfg, err := View(s, "shop/web-a")
	if err != nil {
		t.Fatal(err)
	}
	var hosts, records []string
	for _, n := range cfg.Names {
		hosts = append(hosts, n.Host)
		for _, r := range n.SRV {
			records = append(records, fmt.Sprintf("%s.%s %d %s", r.Service, n.Short, r.Port, strings.TrimSuffix(r.Target, ".shop.svc.cluster.local")))
		}
	}
	if diff := cmp.Diff([]string{
		"pods.shop.svc.cluster.local", "web-a.pods.shop.svc.cluster.local", "web-b.pods.shop.svc.cluster.local",
		"web-c.pods.shop.svc.cluster.local", "web.shop.svc.cluster.local",
	}, hosts); diff != "" {
		t.Errorf("hosts (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{
		"_http._tcp.pods 8080 web-a.pods", "_http._tcp.pods 9090 web-b.pods",
		"_dns._udp.pods 5353 web-a.pods", "_dns._udp.pods 5353 web-b.pods", "_dns._udp.pods 5353 web-c.pods",
		"_http._tcp.web 80 web", "_dns._udp.web 53 web",
	}, records); diff != "" {
		t.Errorf("service records (-want +got):\n%s", diff)
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

// TestProgramsServeTheirOwnPorts: what `vitrine run` adds to a service is behind the
// ports that it was given, and not behind others of the service.
func TestProgramsServeTheirOwnPorts(t *testing.T) {
	program := func(suffix string, ports ...mesh.WorkloadPort) mesh.Workload {
		w := workload("shop", "web", suffix, true, ports...)
		w.OwnerKind = mesh.KindProgram
		return w
	}
	port := func(n uint16) mesh.ServicePort {
		return mesh.ServicePort{Name: fmt.Sprintf("http-%d", n), Port: n, TargetPort: n, Protocol: mesh.ProtocolHTTP}
	}
	p := newPlane(t, "")
	fill(p, []mesh.Service{service("shop", "web", port(8080), port(8081))}, []mesh.Workload{
		workload("shop", "web", "file", true), // in Kubernetes a declared port is only information
		program("a", mesh.WorkloadPort{Port: 8080}),
		program("b", mesh.WorkloadPort{Port: 8081}),
		program("client"),
	})
	cfg, err := View(snapshot(p), "shop/web-client")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range cfg.Endpoints {
		var names []string
		for _, ep := range e.Endpoints {
			names = append(names, ep.Workload)
		}
		got[e.Cluster] = strings.Join(names, " ")
	}
	want := map[string]string{
		"outbound|8080||web.shop.svc.cluster.local": "shop/web-a shop/web-file",
		"outbound|8081||web.shop.svc.cluster.local": "shop/web-b shop/web-file",
	}
	if !maps.Equal(got, want) {
		t.Errorf("endpoints %v, want %v", got, want)
	}
}

// TestServicesOfOnePort: of several services that lead to one port of a program, its
// proxy knows all, and first the one that stands for them: one with virtual addresses,
// of the least name. A published address is that of its own service alone.
func TestServicesOfOnePort(t *testing.T) {
	p := newPlane(t, "")
	http := mesh.ServicePort{Name: "http", Port: 80, TargetPort: 8080, Protocol: mesh.ProtocolHTTP}
	again, published := http, http
	again.Name, again.Port = "again", 8080
	published.Publish = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:8081")}
	all := service("shop", "all", http)
	all.Headless = true
	services := []mesh.Service{all, service("shop", "web-canary", published, again), service("shop", "web", http), service("other", "aaa", http)}
	for i := range services {
		services[i].Selector = map[string]string{"app": "web"}
	}
	fill(p, services, []mesh.Workload{workload("shop", "web", "1", true, mesh.WorkloadPort{Name: "http", Port: 8080})})
	cfg, err := View(snapshot(p), "shop/web-1")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(render(cfg)) {
		if strings.HasPrefix(line, "cluster inbound") || strings.HasPrefix(line, "listener 127.77.") || strings.HasPrefix(line, "listener published") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	want := []string{
		`listener 127.77.0.2_15100 127.77.0.2:15100 dir=1 bind=true publish=false header=false http routes="" cluster="inbound|8080||"`,
		`listener published_127.0.0.1_8081 127.0.0.1:8081 dir=1 bind=true publish=true header=false http routes="" cluster="inbound|8080||web-canary.shop.svc.cluster.local"`,
		`cluster inbound|8080|| type=1 service=web.shop.svc.cluster.local port=8080 timeout=10s also=web-canary.shop.svc.cluster.local also=all.shop.svc.cluster.local`,
		`cluster inbound|8080||web-canary.shop.svc.cluster.local type=1 service=web-canary.shop.svc.cluster.local port=8080 timeout=10s`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
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
