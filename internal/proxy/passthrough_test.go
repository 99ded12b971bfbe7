package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// localListener hands over connections to a loopback address of the host.
type localListener struct{ loopListener }

func (l localListener) Accept() (Conn, error) {
	c, err := l.loopListener.Accept()
	c.Localhost = true
	return c, err
}

// through sends connections to dst through a proxy that knows the catch-all, and
// a service with an HTTP port of dst's number.
func through(t *testing.T, dst netip.AddrPort, localhost bool, workloads ...mesh.Workload) (*rig, string) {
	t.Helper()
	r := newRig(t, mesh.ProtocolAuto)
	cfg := &mesh.NodeConfig{
		Listeners: []mesh.Listener{{
			Name: catchAll, Direction: mesh.Outbound, RouteConfig: mesh.RouteAllowAny, Cluster: mesh.PassthroughCluster,
		}},
		Routes: []mesh.RouteConfig{{Name: mesh.RouteAllowAny, VirtualHosts: []mesh.VirtualHost{{
			Name: "allow_any", Domains: []string{"*"},
			Routes: []mesh.Route{{Name: "allow_any", Prefix: "/", Clusters: []mesh.WeightedCluster{{Cluster: mesh.PassthroughCluster, Weight: 1}}}},
		}}}},
		Clusters:  []mesh.Cluster{{Name: mesh.PassthroughCluster, Type: mesh.ClusterOriginalDst}},
		Workloads: workloads,
	}
	cfg.Listeners = append(cfg.Listeners, mesh.Listener{
		Name: "0.0.0.0_" + strconv.Itoa(int(dst.Port())), Direction: mesh.Outbound, Protocol: mesh.ProtocolHTTP,
		Address: netip.AddrPortFrom(netip.IPv4Unspecified(), dst.Port()), RouteConfig: mesh.RouteAllowAny,
	})
	if err := r.p.Apply(cfg); err != nil {
		t.Fatal(err)
	}
	entry := loopListener{tcpListen(t), dst}
	var ln Listener = entry
	if localhost {
		ln = localListener{entry}
	}
	done := make(chan error, 1)
	go func() { done <- r.p.ServeOutbound(t.Context(), ln) }()
	t.Cleanup(func() {
		entry.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r, entry.Addr().String()
}

// TestLocalhostOfTheHost: a loopback address means itself, but 127.0.0.1 and ::1
// stand in for each other, as the name localhost has both.
func TestLocalhostOfTheHost(t *testing.T) {
	for _, tt := range []struct{ serves, called, want string }{
		{"127.0.0.1", "127.0.0.1", "127.0.0.1"},
		{"127.0.0.9", "127.0.0.9", "127.0.0.9"},
		{"127.0.0.1", "127.0.0.9", ""},
		{"127.0.0.9", "127.0.0.1", ""},
		{"::1", "::1", "::1"},
		{"::1", "127.0.0.1", "::1"},
		{"127.0.0.1", "::1", "127.0.0.1"},
		{"127.0.0.9", "::1", ""},
	} {
		t.Run(tt.serves+" called as "+tt.called, func(t *testing.T) {
			ln, err := net.Listen("tcp", net.JoinHostPort(tt.serves, "0"))
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					_, _ = io.WriteString(c, c.LocalAddr().(*net.TCPAddr).IP.String())
					c.Close()
				}
			}()
			dst := netip.AddrPortFrom(netip.MustParseAddr(tt.called), addrPort(ln).Port())
			_, entry := through(t, dst, true)
			c, err := net.Dial("tcp", entry)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if tt.want == "" {
				mustReset(t, c)
				return
			}
			if got, err := io.ReadAll(c); string(got) != tt.want || err != nil {
				t.Errorf("answered by %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

// TestProxiesAreOutOfReach: a program must not reach what the proxies of its mesh
// serve on the host, as their admin.
func TestProxiesAreOutOfReach(t *testing.T) {
	other := mesh.Workload{Name: "other-1", Namespace: "default", Owner: "other", IP: mesh.IP(mesh.MeshNetFirst, 999)}
	ln, err := net.Listen("tcp", netip.AddrPortFrom(other.IP, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			t.Error("a program reached a proxy's port")
			c.Close()
		}
	}()
	for _, localhost := range []bool{true, false} {
		_, entry := through(t, addrPort(ln), localhost, other)
		c, err := net.Dial("tcp", entry)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "\x00 not HTTP\r\n") // the proxy may have reset it
		mustReset(t, c)
		c.Close()
	}
}

// TestVirtualIPEndsInTheMesh: a port that a service does not have must not reach
// whoever has the virtual address outside.
func TestVirtualIPEndsInTheMesh(t *testing.T) {
	for _, dst := range []string{"240.240.0.7:81", "[2001:2::7]:81"} {
		t.Run(dst, func(t *testing.T) {
			r, entry := through(t, netip.MustParseAddrPort(dst), false)
			resp, err := http.Get("http://" + entry)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("status %d, want 503", resp.StatusCode)
			}
			r.wantSeries(t, "1", "istio_requests_total", "response_code=503", "response_flags=UH",
				"destination_service_name=BlackHoleCluster", "destination_service="+entry)
			http.DefaultClient.CloseIdleConnections()
		})
	}
}

// TestForeignHost: a program calls a service by its virtual IP with a Host that
// no service has, as a reverse proxy that passes on its client's. The service
// gets the request, and it is counted as the service's.
func TestForeignHost(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) }))
	defer origin.Close()
	cfg := webConfig(mesh.ProtocolHTTP, 0, origin.Listener.Addr().String())
	cfg.Clusters = append(cfg.Clusters, mesh.Cluster{Name: mesh.PassthroughCluster, Type: mesh.ClusterOriginalDst})
	cfg.Routes[0].VirtualHosts = append(cfg.Routes[0].VirtualHosts, mesh.VirtualHost{
		Name: mesh.RouteAllowAny, Domains: []string{"*"},
		Routes: []mesh.Route{{Name: mesh.RouteAllowAny, Prefix: "/", Clusters: []mesh.WeightedCluster{{Cluster: mesh.PassthroughCluster, Weight: 1}}}},
	})
	cfg.Names = []mesh.Name{{Host: cfg.Clusters[0].Service.Host, Addresses: []netip.Addr{mesh.ServiceVIP4(1)}}}
	h := startHop(t, cfg, nil)
	for _, host := range []string{"web", "localhost", "www.example.com:8080", "10.1.2.3", ""} {
		c := h.dial(t)
		request := "GET / HTTP/1.1\r\nConnection: close\r\nHost: " + host + "\r\n\r\n"
		if host == "" {
			request = "GET / HTTP/1.0\r\n\r\n"
		}
		_, _ = io.WriteString(c, request)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("host %q: %v", host, err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || host != "" && string(body) != host || err != nil {
			t.Errorf("host %q: status %d, the origin saw host %q, %v", host, resp.StatusCode, body, err)
		}
	}
	h.lastEntry(t, 5) // a client may have its answer before it is counted
	var text strings.Builder
	if err := h.rec.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`(?m)^istio_requests_total\{.*destination_service="web.default.svc.cluster.local",.*response_code="200".* 5$`)
	if !want.MatchString(text.String()) {
		t.Errorf("series lack %s:\n%s", want, text.String())
	}
}

// TestOutsideOnThePortOfAService: a server outside may speak what it wants, and
// first, on a port that is HTTP for a service of the mesh.
func TestOutsideOnThePortOfAService(t *testing.T) {
	at := origin(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "SSH-2.0-hello\r\n") })
	r, entry := through(t, at, false)
	c, err := net.Dial("tcp", entry)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := mustRead(t, c, 15); got != "SSH-2.0-hello\r\n" {
		t.Errorf("banner %q", got)
	}
	c.Close()
	r.wantSeries(t, "1", "istio_tcp_connections_closed_total", "destination_service_name=PassthroughCluster", "response_flags=-")

	web := origin(t, func(c *net.TCPConn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	})
	r, entry = through(t, web, false)
	resp, err := http.Get("http://" + entry)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	r.wantSeries(t, "1", "istio_requests_total", "destination_service_name=PassthroughCluster", "response_code=204")
	http.DefaultClient.CloseIdleConnections()
}
