package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

// rig is a running Proxy with real sockets on loopback: one outbound listener
// whose accepted connections all go to the address dst, and the origins that
// the test gives.
type rig struct {
	p     *Proxy
	rec   *telemetry.Recorder
	entry string // address that stands for the redirected port
	dst   netip.AddrPort
}

// service of the rig's origin.
func rigService() mesh.ServiceRef {
	return mesh.ServiceRef{Host: "web.default.svc.cluster.local", Name: "web", Namespace: "default"}
}

func tcpListen(t *testing.T) *net.TCPListener {
	t.Helper()
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(loopback(), 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func addrPort(ln net.Listener) netip.AddrPort { return ln.Addr().(*net.TCPAddr).AddrPort() }

// newRig starts a proxy whose port of protocol proto has the given endpoints.
func newRig(t *testing.T, proto mesh.Protocol, endpoints ...netip.AddrPort) *rig {
	t.Helper()
	return newRigWith(t, Options{}, proto, endpoints...)
}

func newRigWith(t *testing.T, o Options, proto mesh.Protocol, endpoints ...netip.AddrPort) *rig {
	t.Helper()
	self := mesh.Workload{Name: "client-1", Namespace: "default", Owner: "client", Labels: map[string]string{"app": "client"}}
	o.Net = testNet
	rec, err := telemetry.New(telemetry.Options{Self: self})
	if err != nil {
		t.Fatal(err)
	}
	o.Recorder = rec
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{p: p, rec: rec, dst: netip.MustParseAddrPort("240.240.0.1:80")}
	if err := p.Apply(r.config(proto, endpoints...)); err != nil {
		t.Fatal(err)
	}
	ln := tcpListen(t)
	r.entry = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	wg.Go(func() {
		if err := p.ServeOutbound(ctx, loopListener{ln, r.dst}); err != nil {
			t.Errorf("serve outbound: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return r
}

// config has one service on r.dst.
func (r *rig) config(proto mesh.Protocol, endpoints ...netip.AddrPort) *mesh.NodeConfig {
	const name = "outbound|80||web.default.svc.cluster.local"
	cfg := &mesh.NodeConfig{
		Listeners: []mesh.Listener{{Name: "web", Direction: mesh.Outbound, Address: r.dst, Protocol: proto, Cluster: name}},
		Clusters:  []mesh.Cluster{{Name: name, Type: mesh.ClusterEDS, Service: rigService(), Port: 80}},
		Endpoints: []mesh.ClusterEndpoints{{Cluster: name}},
	}
	for _, e := range endpoints {
		cfg.Endpoints[0].Endpoints = append(cfg.Endpoints[0].Endpoints, mesh.Endpoint{Address: e})
	}
	if proto.IsHTTP() || proto == mesh.ProtocolAuto {
		cfg.Listeners[0].RouteConfig = "80"
		cfg.Routes = []mesh.RouteConfig{{Name: "80", VirtualHosts: []mesh.VirtualHost{{
			Name: "web", Domains: []string{"*"},
			Routes: []mesh.Route{{Name: "default", Prefix: "/", Clusters: []mesh.WeightedCluster{{Cluster: name}}}},
		}}}}
	}
	return cfg
}

// dial connects as the program would.
func (r *rig) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", r.entry)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// dialReset connects and wants to be reset, be it before connecting has returned.
func (r *rig) dialReset(t *testing.T) {
	t.Helper()
	c, err := net.Dial("tcp", r.entry)
	switch {
	case errors.Is(err, syscall.ECONNRESET):
	case err != nil:
		t.Fatal(err)
	default:
		mustReset(t, c)
		c.Close()
	}
}

// metrics is the exposition of the proxy's recorder.
func (r *rig) metrics(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.rec.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// patience is how long a test waits for what must come. It only ends a hang: on a
// busy machine everything takes its time.
const patience = time.Minute

// until polls for a condition that other goroutines bring about.
func until(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("not within %s: %s", patience, what)
		}
		pause(tb.Context(), time.Millisecond)
	}
}

// await takes from a channel what must come.
func await[T any](tb testing.TB, ch <-chan T) T {
	tb.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.NewTimer(patience).C:
		tb.Fatalf("it did not come within %s", patience)
		panic("unreachable")
	}
}

var labelValue = regexp.MustCompile(`(\w+)="([^"]*)"`)

// series finds the value of the metric name whose labels include want
// ("label=value" each); "" if there is none.
func (r *rig) series(t *testing.T, name string, want ...string) string {
	t.Helper()
line:
	for line := range strings.Lines(r.metrics(t)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, name+"{") {
			continue
		}
		have := map[string]string{}
		for _, m := range labelValue.FindAllStringSubmatch(line, -1) {
			have[m[1]] = m[2]
		}
		for _, w := range want {
			k, v, _ := strings.Cut(w, "=")
			if have[k] != v {
				continue line
			}
		}
		return line[strings.LastIndexByte(line, ' ')+1:]
	}
	return ""
}

// wantSeries waits until a series has a value.
func (r *rig) wantSeries(t *testing.T, value, name string, labels ...string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		got := r.series(t, name, labels...)
		if got == value {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s%v = %q, want %q; all:\n%s", name, labels, got, value, r.istio(t))
		}
		pause(t.Context(), time.Millisecond)
	}
}

func (r *rig) istio(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(r.metrics(t)) {
		if strings.HasPrefix(line, "istio_") && !strings.Contains(line, "_bucket") || strings.HasPrefix(line, "vitrine_protocol") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// origin serves each connection with handle until the test ends.
func origin(t *testing.T, handle func(c *net.TCPConn)) netip.AddrPort {
	t.Helper()
	return netip.MustParseAddrPort(serveRaw(t, handle))
}

func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
}

// closedPort is an address that refuses connections, unless the test listens there:
// until the test ends a socket is bound to it that does not listen, so that nobody
// gets it by chance.
func closedPort(tb testing.TB) netip.AddrPort {
	tb.Helper()
	// Beside such a socket listeners may be bound, exclusive and published ones, but
	// only by the number of the port.
	_, at := boundSocket(tb, unix.SO_REUSEADDR, unix.SO_REUSEPORT)
	return at
}

// boundSocket is a TCP socket with the options on that does not listen, and its
// address, which is its own until the test ends.
func boundSocket(tb testing.TB, options ...int) (fd int, at netip.AddrPort) {
	tb.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unix.Close(fd) })
	for _, option := range options {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1); err != nil {
			tb.Fatal(err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback().As4()}); err != nil {
		tb.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		tb.Fatal(err)
	}
	return fd, netip.AddrPortFrom(loopback(), uint16(name.(*unix.SockaddrInet4).Port))
}

func mustWrite(t *testing.T, c io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatalf("write: %v", err)
	}
}

func mustRead(t *testing.T, c net.Conn, n int) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	got, err := io.ReadFull(c, b)
	if err != nil {
		t.Fatalf("read %d bytes: got %q, %v", n, b[:got], err)
	}
	return string(b)
}

func mustEOF(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Fatalf("read = %d, %v, want the end", n, err)
	}
}

// mustReset wants the connection to be reset, not closed in order.
func mustReset(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read: %v, want a reset", err)
	}
}
