package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func ref(name string) mesh.ServiceRef {
	return mesh.ServiceRef{Host: name + ".default.svc.cluster.local", Name: name, Namespace: "default"}
}

// TestNameThatWasCalled: of several services that lead to one port, a request is counted
// as one to the service that it names, and otherwise as one to the first.
func TestNameThatWasCalled(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer origin.Close()
	cfg, bind := inboundConfig(t, origin.Listener.Addr().String())
	cfg.Clusters[0].Service = ref("web")
	cfg.Clusters[0].Also = []mesh.ServiceRef{ref("web-canary"), ref("peers")}
	cfg.Names = []mesh.Name{
		{Host: "peers.default.svc.cluster.local", Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.3")}},
		{Host: "web-canary.default.svc.cluster.local", Addresses: []netip.Addr{mesh.ServiceVIP4(9)}},
		{Host: "web.default.svc.cluster.local", Addresses: []netip.Addr{mesh.ServiceVIP4(8)}},
	}
	h := startHop(t, cfg, func(o *Options) { o.Self = cfg.Workloads[0] })
	h.addr = bind.String()
	requests := map[string]int{}
	c := h.dial(t) // one connection for all: what it remembers must not be another's
	responses := bufio.NewReader(c)
	for i, tt := range []struct{ host, service string }{
		{"web", "web"},
		{"web-canary", "web-canary"},
		{"WEB-canary:8080", "web-canary"},
		{"web-canary.default", "web-canary"},
		{"web-canary.default.svc", "web-canary"},
		{"web-canary.default.svc.cluster.local.:8080", "web-canary"},
		{"web-canary.other", "web"},
		{"web-canary-2", "web"},
		{"web.default", "web"},
		{"peers:8080", "peers"},
		{"web-0.peers", "peers"},
		{"web-0.peers.default.svc.cluster.local:8080", "peers"},
		{"web-1.peers", "web"},
		{mesh.ServiceVIP4(9).String(), "web-canary"},
		{mesh.ServiceVIP4(8).String() + ":80", "web"},
		{"10.77.0.3:8080", "peers"},
		{"10.77.0.4", "web"},
		{"shop.example.com", "web"},
		{strings.Repeat("long.", 60) + "web-canary", "web"},
	} {
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", tt.host)
		resp, err := http.ReadResponse(responses, nil)
		if err != nil {
			t.Fatalf("%s: %v", tt.host, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		requests[tt.service]++
		h.lastEntry(t, i+1) // a client may have its answer before it is counted
		if got := countOf(t, h, tt.service); got != requests[tt.service] {
			t.Fatalf("%s: %d requests to %s, want %d", tt.host, got, tt.service, requests[tt.service])
		}
	}
}

// countOf is the number of requests to a service of the namespace default.
func countOf(t *testing.T, h *hop, service string) (sum int) {
	t.Helper()
	var text strings.Builder
	if err := h.rec.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	label := fmt.Sprintf("destination_service=%q", ref(service).Host)
	for line := range strings.Lines(text.String()) {
		if !strings.HasPrefix(line, "istio_requests_total{") || !strings.Contains(line, label) {
			continue
		}
		var n int
		if _, err := fmt.Sscan(line[strings.LastIndexByte(line, '}')+1:], &n); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		sum += n
	}
	return sum
}

// TestAddressOfAPod: a call to a pod's own address is one to the headless service whose
// name has that address, whatever other services lead there.
func TestAddressOfAPod(t *testing.T) {
	const program = 80
	origin := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer origin.Close()
	wire := netip.MustParseAddrPort(origin.Listener.Addr().String())
	for _, tt := range []struct {
		services string // headless ones end with a dot
		host     string
		want     string // service that is counted
	}{
		{"", "db-0.db", ""},
		{"db", "10.77.0.3", "db"},
		{"db.", "db-0.db", "db"},
		{"aa db. db-client", "db-0.db", "db"},
		{"aa db. db-client", "db-client", "db"},
		{"aa db-client", "db-0.db", ""}, // one of them would be a guess
		{"db. db-all. db-client", "db-0.db.default.svc.cluster.local", "db"},
		{"db. db-all. db-client", "db-0.db-all:80", "db-all"},
		{"db. db-all. db-client", "db-all", "db-all"},
	} {
		pod := workload("db", 3)
		pod.Ports = []mesh.WorkloadPort{{Port: program, WirePort: wire.Port()}}
		pod.IP = wire.Addr()
		cfg := &mesh.NodeConfig{Workloads: []mesh.Workload{workload("client", 2), pod}}
		for name := range strings.FieldsSeq(tt.services) {
			name, headless := strings.CutSuffix(name, ".")
			its := mesh.Name{Host: ref(name).Host, Addresses: []netip.Addr{mesh.ServiceVIP4(1)}}
			if headless {
				its.Addresses[0] = pod.CaseIP
			}
			cfg.Names = append(cfg.Names, its)
			cfg.Clusters = append(cfg.Clusters, mesh.Cluster{Name: "outbound|80||" + name, Type: mesh.ClusterEDS, Service: ref(name)})
			cfg.Endpoints = append(cfg.Endpoints, mesh.ClusterEndpoints{
				Cluster: "outbound|80||" + name, Endpoints: []mesh.Endpoint{{Address: wire, Workload: pod.Key()}},
			})
		}
		h := startHopTo(t, cfg, netip.AddrPortFrom(pod.CaseIP, program), func(o *Options) { o.Self = cfg.Workloads[0] })
		c := h.dial(t)
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", tt.host)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("%+v: %v", tt, err)
		}
		resp.Body.Close()
		h.lastEntry(t, 1)
		for _, service := range []string{"aa", "db", "db-all", "db-client"} {
			want := 0
			if service == tt.want {
				want = 1
			}
			if got := countOf(t, h, service); got != want {
				t.Errorf("%+v: %d requests to %s, want %d", tt, got, service, want)
			}
		}
	}
}
