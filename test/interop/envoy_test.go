//go:build interop

package interop

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/meshtest"
)

// bootstrap is an Envoy that has everything from our ADS but the listener
// entry. In a case the kernel says where a connection was going; here the PROXY
// protocol does, and entry hands the connection to the listener of that address.
const bootstrap = `{
  "node": {"id": %q, "cluster": "interop"},
  "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
  "dynamic_resources": {
    "ads_config": {"api_type": %q, "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "ads"}}]},
    "cds_config": {"ads": {}, "resource_api_version": "V3"},
    "lds_config": {"ads": {}, "resource_api_version": "V3"}
  },
  "static_resources": {
    "clusters": [{
      "name": "ads", "type": "STATIC",
      "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}}
      }},
      "load_assignment": {"cluster_name": "ads", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": %q}}}}]}]}
    }],
    "listeners": [{
      "name": "entry", "use_original_dst": true,
      "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
      "listener_filters": [{"name": "envoy.filters.listener.proxy_protocol", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"
      }}],
      "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "entry", "cluster": "BlackHoleCluster"
      }}]}]
    }]
  }
}`

// envoy is a running Envoy.
type envoy struct {
	t     *testing.T
	admin string // base URL
	entry string
}

func startEnvoy(t *testing.T, node, api, socket string) *envoy {
	t.Helper()
	dir := t.TempDir()
	config, admin := filepath.Join(dir, "envoy.json"), filepath.Join(dir, "admin")
	if err := os.WriteFile(config, fmt.Appendf(nil, bootstrap, node, api, socket), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, 20*time.Second, tool(t, "interop/envoy"), "-c", config, "--admin-address-path", admin, "--disable-hot-restart",
		"--concurrency", "1", "--log-level", "warning", "--drain-time-s", "1", "--parent-shutdown-time-s", "2")
	e := &envoy{t: t}
	meshtest.Eventually(t, func() error {
		addr, err := os.ReadFile(admin)
		if err != nil {
			return err
		}
		e.admin = "http://" + strings.TrimSpace(string(addr))
		listeners, err := get(t, e.admin+"/listeners")
		if err != nil {
			return err
		}
		m := regexp.MustCompile(`(?m)^entry::(\S+)$`).FindStringSubmatch(listeners)
		if m == nil {
			return fmt.Errorf("no listener entry in %q", listeners)
		}
		e.entry = m[1]
		return nil
	})
	return e
}

// stat is one value of /stats.
func (e *envoy) stat(name string) (string, error) {
	text, err := get(e.t, e.admin+"/stats?filter=^"+strings.ReplaceAll(name, ".", `\.`)+"$")
	if err != nil {
		return "", err
	}
	_, v, _ := strings.Cut(strings.TrimSpace(text), ": ")
	return v, nil
}

// dump is the part of /config_dump that the test reads.
type dump struct {
	Configs []struct {
		DynamicListeners []struct {
			Name        string
			ErrorState  any             `json:"error_state"`
			ActiveState json.RawMessage `json:"active_state"`
		} `json:"dynamic_listeners"`
		DynamicActiveClusters []struct {
			Cluster    struct{ Name string }
			ErrorState any `json:"error_state"`
		} `json:"dynamic_active_clusters"`
		DynamicRouteConfigs []struct {
			RouteConfig struct{ Name string } `json:"route_config"`
			ErrorState  any                   `json:"error_state"`
		} `json:"dynamic_route_configs"`
		DynamicEndpointConfigs []struct {
			EndpointConfig struct {
				Name string `json:"cluster_name"`
			} `json:"endpoint_config"`
		} `json:"dynamic_endpoint_configs"`
	}
}

// dial opens a connection to what dst is in the mesh.
func (e *envoy) dial(ctx context.Context, dst string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(dst)
	if err != nil {
		return nil, err
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", e.entry)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(c, "PROXY TCP4 10.77.255.1 %s 40000 %s\r\n", host, port)
	return c, err
}

// ask sends one request for host to dst and returns status and body.
func (e *envoy) ask(http2 bool, dst, host string) (string, error) {
	var p http.Protocols
	p.SetHTTP1(!http2)
	p.SetUnencryptedHTTP2(http2)
	return e.do(&http.Transport{Protocols: &p}, dst, "http://"+host+"/")
}

// askTLS is ask over TLS that offers http/1.1, as curl and browsers do.
func (e *envoy) askTLS(dst, host string) (string, error) {
	return e.do(&http.Transport{TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true,
		NextProtos:         []string{"http/1.1"},
	}}, dst, "https://"+host+"/")
}

func (e *envoy) do(tr *http.Transport, dst, address string) (string, error) {
	tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return e.dial(ctx, dst) }
	return e.with(tr, address)
}

func (e *envoy) with(tr *http.Transport, address string) (string, error) {
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(e.t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, body), err
}

// TestEnvoyRunsFromOurADS: a real Envoy takes the whole configuration of a
// workload, refuses nothing, and reaches every kind of port with it.
func TestEnvoyRunsFromOurADS(t *testing.T) {
	m := startMesh(t, shop(t), "--watch")
	box := leaving(t, m)
	outside := startOutside(t)
	node := "sidecar~" + box.IP + "~" + box.Name + ".default~default.svc.cluster.local"
	for _, api := range []string{"GRPC", "DELTA_GRPC"} {
		t.Run(api, func(t *testing.T) {
			e := startEnvoy(t, node, api, filepath.Join(m.runDir, "xds.sock"))
			ready := func() error {
				for _, want := range []string{"listener_manager.workers_started: 1", "control_plane.connected_state: 1"} {
					name, value, _ := strings.Cut(want, ": ")
					got, err := e.stat(name)
					if err != nil {
						return err
					}
					if got != value {
						return fmt.Errorf("%s is %q, want %s", name, got, value)
					}
				}
				return nil
			}
			meshtest.Eventually(t, ready)
			vip := checkDump(t, e)
			checkRefused(t, m, e)

			for _, tt := range []struct {
				http2           bool
				dst, host, want string
			}{
				{false, "240.240.255.1:8080", "web:8080", "200 web HTTP/1.1 web:8080"},
				{false, "240.240.255.1:8080", "cart.default:8080", "200 cart HTTP/1.1 cart.default:8080"},
				{false, "240.240.255.1:8080", "kv.default.svc.cluster.local", "200 kv HTTP/1.1 kv.default.svc.cluster.local"},
				{true, "240.240.255.1:8081", "payment:8081", "200 payment HTTP/2.0 payment:8081"},
				{false, vip(7000, "ratings"), "ratings:7000", "200 ratings HTTP/1.1 ratings:7000"},
				{true, vip(7000, "ratings"), "ratings:7000", "200 ratings HTTP/2.0 ratings:7000"},
			} {
				if got, err := e.ask(tt.http2, tt.dst, tt.host); got != tt.want || err != nil {
					t.Errorf("%s of %s: %q, %v; want %q", tt.host, tt.dst, got, err, tt.want)
				}
			}
			c, err := e.dial(t.Context(), vip(9000, "kv"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(c, "hello")
			if line, err := bufio.NewReader(c).ReadString('\n'); line != "hello\n" {
				t.Errorf("echo: %q, %v", line, err)
			}
			for dst, want := range map[string]string{
				vip(7000, "ratings"): "200 ratings HTTP/1.1 ratings:7000",
				outside:              "200 outside HTTP/1.1 ratings:7000",
			} {
				if got, err := e.askTLS(dst, "ratings:7000"); got != want || err != nil {
					t.Errorf("TLS to %s: %q, %v; want %q", dst, got, err, want)
				}
			}
			checkInbound(t, e, box)
			checkChange(t, m, e)
			checkRefused(t, m, e)
		})
	}
}

// leaving is a workload whose own proxy has given up its listeners, as its program takes
// long to end: Envoy takes its place.
func leaving(t *testing.T, m *meshRun) daemon.Pod {
	t.Helper()
	box := m.pod(t, "box")
	if _, err := m.client.Restart(t.Context(), []string{"box"}); err != nil {
		t.Fatal(err)
	}
	meshtest.Eventually(t, func() error {
		c, err := net.Dial("tcp", inboundOf(box))
		if err == nil {
			c.Close()
			return errors.New("the proxy of box still listens")
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		return nil
	})
	return box
}

func inboundOf(p daemon.Pod) string { return net.JoinHostPort(p.IP, strconv.Itoa(mesh.PortInbound)) }

// checkInbound: Envoy reads the header that proxies send for ports that nobody
// declared, and goes where it says.
func checkInbound(t *testing.T, e *envoy, box daemon.Pod) {
	t.Helper()
	program := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "the program of %s", r.Host) }))
	defer program.Close()
	target := netip.MustParseAddrPort(program.Listener.Addr().String())
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", inboundOf(box))
		if err != nil {
			return nil, err
		}
		header := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), 10, 77, 255, 1)
		header = append(header, target.Addr().AsSlice()...)
		header = append(header, 0, 0, byte(target.Port()>>8), byte(target.Port()))
		_, err = c.Write(header)
		return c, err
	}}
	if got, err := e.with(tr, "http://box:7300/"); got != "200 the program of box:7300" || err != nil {
		t.Errorf("an undeclared port: %q, %v", got, err)
	}
}

// checkDump wants everything that Envoy has to be in use, and returns where the
// listener of a service's port is.
func checkDump(t *testing.T, e *envoy) (vip func(port int, service string) string) {
	t.Helper()
	text, err := get(t, e.admin+"/config_dump?include_eds")
	if err != nil {
		t.Fatal(err)
	}
	var d dump
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	listeners, at := 0, map[string]string{}
	clusters, routes, endpoints := 0, map[string]bool{}, 0
	toCluster := regexp.MustCompile(`"cluster":\s*"outbound\|(\d+)\|\|(\w+)\.`)
	for _, c := range d.Configs {
		for _, l := range c.DynamicListeners {
			listeners++
			if l.ErrorState != nil || len(l.ActiveState) == 0 {
				t.Errorf("listener %s is not active: %v", l.Name, l.ErrorState)
			}
			if ip, _, _ := strings.Cut(l.Name, "_"); strings.HasPrefix(ip, "240.240.") {
				for _, m := range toCluster.FindAllStringSubmatch(string(l.ActiveState), -1) {
					at[m[2]+":"+m[1]] = ip + ":" + m[1]
				}
			}
		}
		for _, cl := range c.DynamicActiveClusters {
			clusters++
			if cl.ErrorState != nil {
				t.Errorf("cluster %s: %v", cl.Cluster.Name, cl.ErrorState)
			}
		}
		for _, r := range c.DynamicRouteConfigs {
			routes[r.RouteConfig.Name] = true
			if r.ErrorState != nil {
				t.Errorf("route %s: %v", r.RouteConfig.Name, r.ErrorState)
			}
		}
		for _, ep := range c.DynamicEndpointConfigs {
			if strings.HasPrefix(ep.EndpointConfig.Name, "outbound|") {
				endpoints++
			}
		}
	}
	// virtualOutbound and virtualInbound, the ports 8080 and 8081, two virtual IPs with two ports
	// each; four ports and the three fixed clusters.
	n := len(services)
	if want := 4 + 4*n; listeners != want {
		t.Errorf("%d listeners, want %d", listeners, want)
	}
	if want := 4*n + 3; clusters != want {
		t.Errorf("%d clusters, want %d", clusters, want)
	}
	if want := 4 * n; endpoints != want {
		t.Errorf("%d endpoint lists, want %d", endpoints, want)
	}
	for _, name := range []string{"8080", "8081", "allow_any", "web.default.svc.cluster.local:7000"} {
		if !routes[name] {
			t.Errorf("no route %s in %v", name, routes)
		}
	}
	return func(port int, service string) string {
		addr := at[fmt.Sprintf("%s:%d", service, port)]
		if addr == "" {
			t.Fatalf("no listener for port %d of %s in %v", port, service, at)
		}
		return addr
	}
}

// checkRefused wants neither side to know of a refused update.
func checkRefused(t *testing.T, m *meshRun, e *envoy) {
	t.Helper()
	stats, err := get(t, e.admin+`/stats?filter=update_(rejected|success)$`)
	if err != nil {
		t.Fatal(err)
	}
	accepted := 0
	for line := range strings.Lines(stats) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if strings.HasSuffix(name, "update_rejected") && value != "0" {
			t.Errorf("Envoy refused: %s", strings.TrimSpace(line))
		}
		if strings.HasSuffix(name, "update_success") && value != "0" {
			accepted++
		}
	}
	if want := 2 + 4*len(services); accepted < want { // LDS, CDS and every EDS
		t.Errorf("%d kinds of updates were accepted, want %d at least:\n%s", accepted, want, stats)
	}
	metrics, err := get(t, m.status.Control+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "pilot_total_xds_rejects") && !strings.HasSuffix(line, " 0\n") {
			t.Errorf("our control plane counts: %s", strings.TrimSpace(line))
		}
	}
}
