package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// h1Origin serves HTTP/1 and counts connections.
func h1Origin(t *testing.T, conns *atomic.Int64) netip.AddrPort {
	t.Helper()
	return webOrigin(t, &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) }),
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				conns.Add(1)
			}
		},
	})
}

func mustRespond(t *testing.T, c net.Conn, body string) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil || string(b) != body || res.StatusCode != http.StatusOK {
		t.Fatalf("%s %q, %v; want 200 %q", res.Status, b, err, body)
	}
}

// dribble writes s byte by byte with pauses; the whole takes about total.
func dribble(t *testing.T, c net.Conn, s string, total time.Duration) {
	t.Helper()
	if _, err := trickle(t, c, total, strings.Split(s, "")...); err != nil {
		t.Fatalf("write: %v", err)
	}
}

// trickle writes the pieces with pauses; the whole takes about total. It returns the
// longest time between two writes, which a busy machine makes longer.
func trickle(t *testing.T, c net.Conn, total time.Duration, pieces ...string) (longest time.Duration, err error) {
	t.Helper()
	last := time.Now()
	for _, piece := range pieces {
		_, err := io.WriteString(c, piece)
		now := time.Now()
		longest, last = max(longest, now.Sub(last)), now
		if err != nil {
			return longest, err
		}
		pause(t.Context(), total/time.Duration(len(pieces)))
	}
	return longest, nil
}

// A client that takes longer than the grace for its first line is not mis-filed,
// and its request goes over the connection that was opened meanwhile.
func TestDetectsSlowHTTPClient(t *testing.T) {
	var conns atomic.Int64
	r := newRig(t, mesh.ProtocolAuto, h1Origin(t, &conns))
	c := r.dial(t)
	dribble(t, c, "GET /slow ", 3*detectGrace)
	r.untilEarly(t)
	dribble(t, c, "HTTP/1.1\r\nHost: web\r\n\r\n", 3*detectGrace)
	mustRespond(t, c, "/slow")
	c.Close()
	r.wantSeries(t, "1", "istio_requests_total", requestLabels("http", "200", "", "-")...)
	r.wantSeries(t, "1", "vitrine_protocol_detection_total", "result=http1")
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections to the origin, want 1", n)
	}
	if got := r.series(t, "istio_tcp_connections_opened_total"); got != "" {
		t.Errorf("counted as an opaque connection too: %s", got)
	}
}

// untilEarly waits for the early connection to the origin. That the origin has it is
// not enough: one that is not complete on this side, too, is given up for the
// request.
func (r *rig) untilEarly(t *testing.T) {
	t.Helper()
	member := r.p.snap.Load().clusters["outbound|80||web.default.svc.cluster.local"].Members[0]
	until(t, "there is an early connection", func() bool { return member.Counts().ActiveConnections == 1 })
}

// The same for a client that connects long before it has something to ask.
func TestDetectsHTTPAfterSilence(t *testing.T) {
	var conns atomic.Int64
	r := newRig(t, mesh.ProtocolAuto, h1Origin(t, &conns))
	c := r.dial(t)
	r.untilEarly(t)
	mustWrite(t, c, "GET /late HTTP/1.1\r\nHost: web\r\n\r\n")
	mustRespond(t, c, "/late")
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections to the origin, want 1", n)
	}
}

// A request that arrives at once opens no early connection beside its own. What a
// busy machine delayed by more than the grace did not arrive at once, and proves
// nothing.
func TestDetectsHTTPAtOnce(t *testing.T) {
	for range 20 {
		var conns atomic.Int64
		r := newRig(t, mesh.ProtocolAuto, h1Origin(t, &conns))
		began := time.Now()
		c := r.dial(t)
		mustWrite(t, c, "GET /now HTTP/1.1\r\nHost: web\r\n\r\n")
		mustRespond(t, c, "/now")
		took := time.Since(began)
		r.wantSeries(t, "1", "vitrine_protocol_detection_total", "result=http1")
		switch n := conns.Load(); {
		case n == 1:
			return
		case took < detectGrace:
			t.Fatalf("%d connections to the origin, want 1", n)
		}
	}
	t.Fatal("no request was answered within the grace")
}

// The preface of HTTP/2, cut into bytes.
func TestDetectsSlowHTTP2Client(t *testing.T) {
	at := h2Origin(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })
	r := newRig(t, mesh.ProtocolAuto, at)
	c := r.dial(t)
	last := len(http2.ClientPreface) - 1
	dribble(t, c, http2.ClientPreface[:last], 4*detectGrace)
	mustWrite(t, c, http2.ClientPreface[last:]+h2Settings)
	f := newH2Frames(c)
	f.request(t, 1, true, ":method", "GET", ":scheme", "http", ":authority", "web", ":path", "/")
	for {
		if h, ok := f.next(t).(*http2.MetaHeadersFrame); ok {
			if got := h.PseudoValue("status"); got != "202" {
				t.Errorf("status %s", got)
			}
			break
		}
	}
	c.Close()
	r.wantSeries(t, "1", "istio_requests_total", requestLabels("http", "202", "", "-")...)
	r.wantSeries(t, "1", "vitrine_protocol_detection_total", "result=http2")
}

// What starts like a request and then stops is passed on: a silent client of an
// unknown protocol is not held for ever.
func TestDetectsStalledClient(t *testing.T) {
	r := newRig(t, mesh.ProtocolAuto, origin(t, echo))
	c := r.dial(t)
	mustWrite(t, c, "GET")
	if got := mustRead(t, c, 3); got != "GET" {
		t.Errorf("echo %q", got)
	}
	r.wantSeries(t, "1", "vitrine_protocol_detection_total", "result=stalled")
}

// A client that always sends one more byte before it counts as stalled has to
// have its first line complete in the time of a head.
func TestDetectsDribblingClient(t *testing.T) {
	r := newRigWith(t, Options{HeaderTimeout: 300 * time.Millisecond}, mesh.ProtocolAuto, origin(t, echo))
	c := r.dial(t)
	dribble(t, c, "GET /"+strings.Repeat("a", 15), time.Second)
	mustWrite(t, c, "b")
	if got, want := mustRead(t, c, 21), "GET /aaaaaaaaaaaaaaab"; got != want {
		t.Errorf("echo %q, want %q", got, want)
	}
	r.wantSeries(t, "1", "vitrine_protocol_detection_total", "result=stalled")
}

func TestServerFirstMemoryIsBounded(t *testing.T) {
	var m serverFirst
	key := func(i int) portKey {
		return portKey{addr: netip.AddrPortFrom(loopback(), uint16(i)), cluster: "c"}
	}
	for i := range 2 * maxServerFirst {
		m.learn(key(i))
	}
	if n := len(m.known); n != maxServerFirst {
		t.Errorf("%d remembered, want %d", n, maxServerFirst)
	}
	last := key(2*maxServerFirst - 1)
	if !m.has(last) {
		t.Error("the latest is forgotten")
	}
	last.cluster = "another"
	if m.has(last) {
		t.Error("remembered although the configuration of the port has changed")
	}
}

// A client that has said nothing is closed when the proxy drains; a stream in
// progress ends in peace, and its client is told to go away.
func TestDrainUndeclaredAndHTTP2(t *testing.T) {
	release := make(chan struct{})
	asked := make(chan struct{})
	at := h2Origin(t, func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-release
		_, _ = io.WriteString(w, "done")
	})
	r := newRigWith(t, Options{DrainIdleGrace: time.Millisecond}, mesh.ProtocolAuto, at)
	silent := r.dial(t)
	c := r.dial(t)
	f := h2Raw(t, c)
	f.request(t, 1, true, ":method", "GET", ":scheme", "http", ":authority", "web", ":path", "/")
	await(t, asked)
	drained := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		drained <- r.p.Drain(ctx)
	}()
	mustEOF(t, silent)
	goAway, body := false, ""
	for body != "done" {
		switch fr := f.next(t).(type) {
		case *http2.GoAwayFrame:
			if !goAway {
				goAway = true
				close(release)
			}
		case *http2.DataFrame:
			body += string(fr.Data())
		case nil:
			t.Fatalf("closed after %q, go away %t", body, goAway)
		}
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	r.wantSeries(t, "1", "istio_requests_total", requestLabels("http", "200", "", "-")...)
}

// TestNobodySaidAWord: a connection that ends before a byte was sent counts as nothing,
// whoever ends it; if the server has ended its side only, the client may still speak.
func TestNobodySaidAWord(t *testing.T) {
	heard := make(chan string, 1)
	how := make(chan string, 1)
	r := newRig(t, mesh.ProtocolAuto, origin(t, func(c *net.TCPConn) {
		switch <-how {
		case "closes":
		case "resets":
			_ = c.SetLinger(0)
		case "half-closes":
			_ = c.CloseWrite()
			said, _ := io.ReadAll(c)
			heard <- string(said)
		case "waits":
			_, _ = io.Copy(io.Discard, c)
		}
	}))
	for _, does := range []string{"closes", "resets", "half-closes", "waits"} {
		c := r.dial(t)
		how <- does
		switch does {
		case "closes":
			mustEOF(t, c)
			c.Close()
		case "resets":
			mustReset(t, c)
		case "half-closes":
			mustEOF(t, c)
			_, _ = io.WriteString(c, "GET is no request here\n")
			_ = c.CloseWrite()
			if got := await(t, heard); got != "GET is no request here\n" {
				t.Errorf("the server heard %q", got)
			}
		case "waits":
			_ = c.CloseWrite()
			mustEOF(t, c)
		}
	}
	r.wantSeries(t, "1", "istio_tcp_connections_opened_total")
	r.wantSeries(t, "1", "istio_tcp_connections_closed_total")
	r.wantSeries(t, "3", "vitrine_protocol_detection_total", "result=closed")
}

func TestDetectsServerFirst(t *testing.T) {
	at := origin(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "220 mx ESMTP\r\n")
		line, _ := bufio.NewReader(c).ReadString('\n')
		_, _ = io.WriteString(c, "250 "+line)
	})
	r := newRig(t, mesh.ProtocolAuto, at)
	for round := range 2 {
		c := r.dial(t)
		if got := mustRead(t, c, 14); got != "220 mx ESMTP\r\n" {
			t.Fatalf("greeting %q", got)
		}
		mustWrite(t, c, "HELO me\r\n")
		if got := mustRead(t, c, 13); got != "250 HELO me\r\n" {
			t.Fatalf("answer %q", got)
		}
		mustEOF(t, c)
		c.Close()
		r.wantSeries(t, strconv.Itoa(round+1), "vitrine_protocol_detection_total", "result=server_first")
		r.p.serverFirst.mu.Lock()
		n := len(r.p.serverFirst.known)
		r.p.serverFirst.mu.Unlock()
		if n != 1 {
			t.Errorf("%d server-first destinations remembered, want 1", n)
		}
	}
	r.wantSeries(t, "2", "istio_tcp_connections_closed_total", "destination_service_name=web")

	r.wantSeries(t, "54", "istio_tcp_sent_bytes_total")
}

func TestDetectsOpaqueClients(t *testing.T) {
	for _, tc := range []struct{ name, first string }{
		{"redis", "*1\r\n$4\r\nPING\r\n"},
		{"postgres", "\x00\x00\x00\x08\x04\xd2\x16\x2f"},
		{"a word without an end", "ping"},
		{"an unfinished name", "\x00\x00"},
		{"memcached", "get k\r\n"},
		{"redis inline", "GET key\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, mesh.ProtocolAuto, origin(t, echo))
			c := r.dial(t)
			mustWrite(t, c, tc.first)
			if got := mustRead(t, c, len(tc.first)); got != tc.first {
				t.Errorf("echo %q, want %q", got, tc.first)
			}
			r.wantSeries(t, "1", "vitrine_protocol_detection_total", "result=opaque")
			c.CloseWrite()
			mustEOF(t, c)
			r.wantSeries(t, "1", "istio_tcp_connections_closed_total")
		})
	}
}

// A client that is silent at first, longer than the grace, and then speaks
// neither HTTP nor waits for the server.
func TestDetectsOpaqueClientAfterTheGrace(t *testing.T) {
	accepted := make(chan struct{}, 1)
	at := origin(t, func(c *net.TCPConn) {
		accepted <- struct{}{}
		echo(c)
	})
	r := newRig(t, mesh.ProtocolAuto, at)
	c := r.dial(t)
	<-accepted // the early connection
	mustWrite(t, c, "*1\r\n$4\r\nPING\r\n")
	if got := mustRead(t, c, 14); got != "*1\r\n$4\r\nPING\r\n" {
		t.Errorf("echo %q", got)
	}
	select {
	case <-accepted:
		t.Error("a second connection was opened, though the early one was there")
	default:
	}
	c.CloseWrite()
	mustEOF(t, c)
	r.wantSeries(t, "1", "istio_tcp_connections_closed_total", "response_flags=-")
}

func TestDetectsTLSByName(t *testing.T) {
	cert := selfSigned(t)
	at := origin(t, func(c *net.TCPConn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
		_, _ = io.Copy(s, s)
		s.CloseWrite()
	})
	for _, proto := range []mesh.Protocol{mesh.ProtocolAuto, mesh.ProtocolTLS} {
		t.Run(proto.String(), func(t *testing.T) {
			r := newRig(t, proto)
			cfg := r.config(proto, at)
			cfg.Listeners = append(cfg.Listeners, mesh.Listener{
				Name: catchAll, Direction: mesh.Outbound, Protocol: mesh.ProtocolAuto, Cluster: mesh.PassthroughCluster,
			})
			cfg.Listeners[0].Address = netip.MustParseAddrPort("240.240.0.9:80")
			cfg.Clusters = append(cfg.Clusters, mesh.Cluster{Name: mesh.PassthroughCluster, Type: mesh.ClusterOriginalDst})
			listeners := cfg.Listeners[1:]
			if proto == mesh.ProtocolTLS {
				listeners[0].Protocol = mesh.ProtocolTLS
			}
			if err := r.p.Apply(cfg); err != nil {
				t.Fatal(err)
			}
			entry := tcpListen(t)
			done := make(chan error, 1)
			go func() { done <- r.p.ServeOutbound(t.Context(), loopListener{entry, at}) }()
			raw, err := net.Dial("tcp", entry.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			c := tls.Client(raw, &tls.Config{ServerName: "Shop.example.com", InsecureSkipVerify: true})
			mustWrite(t, c, "secret")
			if got := mustRead(t, c, 6); got != "secret" {
				t.Errorf("echo %q", got)
			}
			c.CloseWrite()
			mustEOF(t, c)
			c.Close()
			r.wantSeries(t, "1", "istio_tcp_connections_closed_total", "destination_service=shop.example.com", "destination_service_name=PassthroughCluster")
			r.wantSeries(t, "1", "vitrine_protocol_detection_total", "result=tls")
			entry.Close()
			<-done
		})
	}
}

func TestDetectsUnreachableDestination(t *testing.T) {
	r := newRig(t, mesh.ProtocolAuto, closedPort(t))
	r.dialReset(t)
	r.wantSeries(t, "1", "istio_tcp_connections_closed_total", "response_flags=UF")
	r.wantSeries(t, "1", "vitrine_protocol_detection_total", "result=unreachable")
}

// A connection that says nothing and goes leaves no trace in the mesh's
// metrics: nobody asked anything.
func TestDetectsSilence(t *testing.T) {
	r := newRig(t, mesh.ProtocolAuto, origin(t, echo))
	r.dial(t).Close()
	r.wantSeries(t, "1", "vitrine_protocol_detection_total", "result=closed")
	if got := r.series(t, "istio_tcp_connections_closed_total"); got != "" {
		t.Errorf("counted as a connection: %s", got)
	}
}
