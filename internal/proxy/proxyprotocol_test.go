package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// TestHeader: the bytes are those of the specification, and are read as written.
func TestHeader(t *testing.T) {
	for _, tt := range []struct{ source, target, want string }{
		{"10.77.0.2", "10.77.0.3:258", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x0a\x4d\x00\x02\x0a\x4d\x00\x03\x00\x00\x01\x02"},
		{"", "10.77.0.3:258", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x00\x00\x00\x00\x0a\x4d\x00\x03\x00\x00\x01\x02"},
		{
			"fd77::2", "[fd77::3]:258", "\r\n\r\n\x00\r\nQUIT\n\x21\x21\x00\x24" +
				"\xfd\x77\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02" +
				"\xfd\x77\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x01\x02",
		},
	} {
		source, _ := netip.ParseAddr(tt.source)
		target := netip.MustParseAddrPort(tt.target)
		b := header(source, target)
		if string(b) != tt.want {
			t.Errorf("%s to %s: %q, want %q", tt.source, tt.target, b, tt.want)
		}
		for n := range b {
			if got, used, err := parseHeader(b[:n]); used != 0 || err != nil {
				t.Errorf("%s: the first %d bytes: %v, %d, %v", tt.target, n, got, used, err)
			}
		}
		for _, rest := range []string{"", "GET / HTTP/1.1\r\n"} {
			if got, n, err := parseHeader(append(b, rest...)); got != target || n != len(tt.want) || err != nil {
				t.Errorf("%s: read as %s, %d bytes, %v", tt.target, got, n, err)
			}
		}
	}
}

func TestHeaderErrors(t *testing.T) {
	good := string(header(netip.Addr{}, netip.MustParseAddrPort("10.77.0.3:81")))
	with := func(at int, b byte) string { return good[:at] + string([]byte{b}) + good[at+1:] }
	for _, tt := range []struct {
		name, bytes string
		want        error
	}{
		{"no header", "GET / HTTP/1.1\r\n\r\n", errNoHeader},
		{"version 1", "PROXY TCP4 10.77.0.2 10.77.0.3 1 81\r\n", errNoHeader},
		{"version 3", with(12, 0x31), errNoHeader},
		{"a proxy's own connection", with(12, 0x20), errNoHeader},
		{"UDP", with(13, 0x12), errNoHeader},
		{"a Unix socket", with(13, 0x31), errNoHeader},
		{"too short for its addresses", with(15, 11), errShortHeader},
		{"too short for IPv6", with(13, 0x21), errShortHeader},
		{"too long", with(14, 2), errLongHeader},
	} {
		if _, n, err := parseHeader([]byte(tt.bytes)); n != 0 || !errors.Is(err, tt.want) {
			t.Errorf("%s: %d, %v; want %v", tt.name, n, err, tt.want)
		}
	}
	extended := with(15, 12+5) + "\x04\x00\x02ab"
	if target, n, err := parseHeader([]byte(extended)); target.Port() != 81 || n != len(extended) || err != nil {
		t.Errorf("with an extension: %s, %d, %v", target, n, err)
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(header(netip.Addr{}, netip.MustParseAddrPort("10.77.0.3:81")))
	f.Add(header(netip.Addr{}, netip.MustParseAddrPort("[fd77::3]:81")))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		target, n, err := parseHeader(b)
		if n < 0 || n > len(b) || n > maxHeader || err != nil && n != 0 {
			t.Fatalf("%d of %d bytes, %v", n, len(b), err)
		}
		for k := range b[:min(len(b), maxHeader)] {
			early, used, soon := parseHeader(b[:k])
			switch {
			case soon != nil && !errors.Is(soon, err):
				t.Fatalf("the first %d bytes: %v, all: %v", k, soon, err)
			case used != 0 && (used != n || early != target):
				t.Fatalf("the first %d bytes: %s, %d, all: %s, %d", k, early, used, target, n)
			}
		}
		if n == 0 {
			return
		}
		again, m, err := parseHeader(header(netip.Addr{}, target))
		if again != target || m == 0 || err != nil {
			t.Fatalf("%s was written and read as %s, %d, %v", target, again, m, err)
		}
	})
}

// undeclared is a workload whose proxy serves what nobody declared, and a client's
// proxy that sends it connections to one address.
type undeclared struct {
	pod, client *hop
	dialled     func() string // for whom the program was dialled, and where
}

// startUndeclared runs both proxies; what is called on the pod is at origin.
func startUndeclared(t *testing.T, origin string, called func(pod *mesh.Workload) netip.AddrPort) undeclared {
	t.Helper()
	// The port is always the same, so the address must be nobody else's.
	pod := workload("db", mesh.Index(20_000+os.Getpid()%40_000))
	pod.CaseIP6 = netip.MustParseAddr("fd77::3")
	pod.Ports = []mesh.WorkloadPort{{Port: 80, WirePort: 15100}}
	client := workload("client", mesh.Index(10_000+os.Getpid()%10_000))
	client.CaseIP6 = netip.MustParseAddr("fd77::2")
	var mu sync.Mutex
	var dialled []string
	served := startHop(t, &mesh.NodeConfig{
		Listeners: []mesh.Listener{{
			Name: "virtualInbound", Direction: mesh.Inbound, Address: netip.AddrPortFrom(pod.IP, mesh.PortInbound), Bind: true,
			ProxyProtocol: true, Cluster: mesh.InboundPassthroughCluster,
		}},
		Clusters:  []mesh.Cluster{{Name: mesh.InboundPassthroughCluster, Type: mesh.ClusterOriginalDst, ConnectTimeout: patience}},
		Workloads: []mesh.Workload{pod, client},
	}, func(o *Options) {
		o.Self, o.DrainIdleGrace = pod, time.Millisecond
		o.DialProgram = func(ctx context.Context, source netip.Addr, target netip.AddrPort) (net.Conn, error) {
			mu.Lock()
			dialled = append(dialled, fmt.Sprintf("%s for %s", target, source))
			mu.Unlock()
			var d net.Dialer
			return d.DialContext(ctx, "tcp", origin)
		}
	})
	served.addr = netip.AddrPortFrom(pod.IP, mesh.PortInbound).String()
	cfg := &mesh.NodeConfig{Workloads: []mesh.Workload{client, pod}}
	return undeclared{
		pod:    served,
		client: startHopTo(t, cfg, called(&pod), func(o *Options) { o.Self = client }),
		dialled: func() string {
			mu.Lock()
			defer mu.Unlock()
			return strings.Join(dialled, ", ")
		},
	}
}

// TestUndeclaredPortOfAPod: a port that nobody declared is reached as in Kubernetes, at
// the pod's own address; both ends count it.
func TestUndeclaredPortOfAPod(t *testing.T) {
	origin := httptestServer(t)
	for _, tt := range []struct {
		name   string
		called func(pod *mesh.Workload) netip.AddrPort
		want   func(client, pod *mesh.Workload) string
	}{
		{
			"IPv4", func(pod *mesh.Workload) netip.AddrPort { return netip.AddrPortFrom(pod.CaseIP, 81) },
			func(client, pod *mesh.Workload) string { return fmt.Sprintf("%s:81 for %s", pod.CaseIP, client.CaseIP) },
		},
		{
			"IPv6", func(pod *mesh.Workload) netip.AddrPort { return netip.AddrPortFrom(pod.CaseIP6, 81) },
			func(client, pod *mesh.Workload) string {
				return fmt.Sprintf("[%s]:81 for %s", pod.CaseIP6, client.CaseIP6)
			},
		},
		{
			"mesh IP", func(pod *mesh.Workload) netip.AddrPort { return netip.AddrPortFrom(pod.IP, mesh.PortAdmin) },
			func(client, pod *mesh.Workload) string {
				return fmt.Sprintf("%s:15000 for %s", pod.CaseIP, client.CaseIP)
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := startUndeclared(t, origin, tt.called)
			c := u.client.dial(t)
			responses := bufio.NewReader(c)
			const requests = 3
			for range requests {
				_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: db-0.db:81\r\n\r\n")
				resp, err := http.ReadResponse(responses, nil)
				if err != nil {
					t.Fatal(err)
				}
				if body, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || string(body) != "from the program" || err != nil {
					t.Fatalf("%d %s, %v", resp.StatusCode, body, err)
				}
			}
			self := &u.client.p.o.Self
			if got, want := u.dialled(), tt.want(self, &u.pod.p.o.Self); got != want {
				t.Errorf("the program was dialled at %s, want %s", got, want)
			}
			u.client.lastEntry(t, requests)
			u.pod.lastEntry(t, requests)
			cs := u.pod.p.Stats().Clusters[0]
			if cs.Name != mesh.InboundPassthroughCluster || len(cs.Endpoints) != 1 || cs.Endpoints[0].TotalRequests != requests {
				t.Errorf("the admin's figures are %+v", cs)
			}
			u.client.wantSeries(t, `istio_requests_total\{.*destination_workload="db",.*destination_service_name="PassthroughCluster",.*response_code="200".* 3$`)
			u.pod.wantSeries(t, `istio_requests_total\{.*source_workload="client",.*destination_service_name="InboundPassthroughCluster",.*response_code="200".* 3$`)
		})
	}
}

// TestUndeclaredPortServerFirst: what is not HTTP arrives whole, and the header is not
// counted among its bytes.
func TestUndeclaredPortServerFirst(t *testing.T) {
	origin := serveRaw(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "220 ready\r\n")
		_, _ = io.Copy(c, c)
		_ = c.CloseWrite()
	})
	u := startUndeclared(t, origin, func(pod *mesh.Workload) netip.AddrPort { return netip.AddrPortFrom(pod.CaseIP, 21) })
	c := u.client.dial(t)
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); line != "220 ready\r\n" || err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	sent := strings.Repeat("\x00\xff", 100_000)
	go func() {
		_, _ = io.WriteString(c, sent)
		_ = c.CloseWrite()
	}()
	if got, err := io.ReadAll(r); string(got) != sent || err != nil {
		t.Fatalf("%d bytes came back, %v", len(got), err)
	}
	for _, h := range []*hop{u.client, u.pod} {
		h.lastEntry(t, 1)
		h.wantSeries(t, fmt.Sprintf(`istio_tcp_received_bytes_total\{.*destination_workload="db".* %d$`, len(sent)))
		h.wantSeries(t, `istio_tcp_connections_closed_total\{.*destination_workload="db".* 1$`)
	}
}

// TestAddressBecomesAPod: the address of a pod that is not there is refused, and not
// looked for elsewhere; when it is there, it is reached at once.
func TestAddressBecomesAPod(t *testing.T) {
	u := startUndeclared(t, httptestServer(t), func(pod *mesh.Workload) netip.AddrPort { return netip.AddrPortFrom(pod.CaseIP, 81) })
	known := u.client.p.Config()
	without := *known
	without.Workloads = known.Workloads[:1]
	without.Listeners = []mesh.Listener{{Name: catchAll, Direction: mesh.Outbound, Cluster: mesh.PassthroughCluster}}
	without.Clusters = []mesh.Cluster{{Name: mesh.PassthroughCluster, Type: mesh.ClusterOriginalDst, ConnectTimeout: patience}}
	ask := func() int {
		c := u.client.dial(t)
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: db-0.db:81\r\nConnection: close\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for range 2 {
		if err := u.client.p.Apply(&without); err != nil {
			t.Fatal(err)
		}
		if got := ask(); got != http.StatusServiceUnavailable {
			t.Errorf("before the pod is known: %d", got)
		}
		if err := u.client.p.Apply(known); err != nil {
			t.Fatal(err)
		}
		if got := ask(); got != http.StatusOK {
			t.Errorf("when the pod is known: %d", got)
		}
	}
	u.client.wantSeries(t, `istio_requests_total\{.*destination_workload="unknown",.*destination_service_name="BlackHoleCluster",.*response_code="503".*response_flags="UH".* 2$`)
}

// TestHeaderIsDemanded: who does not say which port of the workload he wants, or wants
// somebody else's, is refused.
func TestHeaderIsDemanded(t *testing.T) {
	u := startUndeclared(t, "127.0.0.1:1", func(pod *mesh.Workload) netip.AddrPort { return netip.AddrPortFrom(pod.CaseIP, 81) })
	for i, start := range []string{
		"GET / HTTP/1.1\r\nHost: db\r\n\r\n",
		string(header(netip.Addr{}, netip.MustParseAddrPort("127.0.0.1:81"))),
		string(header(netip.Addr{}, netip.MustParseAddrPort("10.77.0.9:81"))),
	} {
		c := u.pod.dial(t)
		_, _ = io.WriteString(c, start)
		mustReset(t, c)
		u.pod.wantSeries(t, fmt.Sprintf(`vitrine_protocol_detection_total\{result="no_header"\} %d$`, i+1))
	}
	if got := u.dialled(); got != "" {
		t.Errorf("the program was dialled at %s", got)
	}
}

// TestDrainWithoutHeader: a connection that never says what it wants does not hold up
// the end of the proxy.
func TestDrainWithoutHeader(t *testing.T) {
	u := startUndeclared(t, "127.0.0.1:1", func(pod *mesh.Workload) netip.AddrPort { return netip.AddrPortFrom(pod.CaseIP, 81) })
	c := u.pod.dial(t)
	until(t, "the connection is served", func() bool { return len(u.pod.p.connections(mesh.Inbound)) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := u.pod.p.Drain(ctx); err != nil {
		t.Error(err)
	}
	_, _ = io.Copy(io.Discard, c)
}

func httptestServer(t *testing.T) string {
	t.Helper()
	return serveRaw(t, func(c *net.TCPConn) {
		for r := bufio.NewReader(c); ; {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\nfrom the program")
		}
	})
}

// wantSeries waits for a line of the exposition that matches.
func (h *hop) wantSeries(t *testing.T, pattern string) {
	t.Helper()
	want := regexp.MustCompile(`(?m)^` + pattern)
	var text bytes.Buffer
	defer func() {
		if t.Failed() {
			t.Logf("%s", strings.Join(regexp.MustCompile("(?m)^(istio|vitrine_prot).*$").FindAllString(text.String(), -1), "\n"))
		}
	}()
	until(t, pattern, func() bool {
		text.Reset()
		if err := h.rec.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		return want.Match(text.Bytes())
	})
}
