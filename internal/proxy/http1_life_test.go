package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

// lastEntry waits for the n-th record and returns the latest.
func (h *hop) lastEntry(tb testing.TB, n int) telemetry.Entry {
	tb.Helper()
	until(tb, "all is recorded", func() bool { return len(h.rec.AccessLog(n)) == n })
	log := h.rec.AccessLog(n)
	return log[len(log)-1]
}

// held is an origin that answers each request when it is told to, and says
// when its connections end.
type held struct {
	asked  chan struct{}
	answer chan string
	ended  chan struct{}
}

func newHeld() *held {
	return &held{asked: make(chan struct{}, 10), answer: make(chan string), ended: make(chan struct{}, 10)}
}

func (o *held) serve(c *net.TCPConn) {
	defer func() { o.ended <- struct{}{} }()
	quit := make(chan struct{})
	requests := make(chan struct{})
	defer close(quit)
	go func() {
		defer close(requests)
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			select {
			case requests <- struct{}{}:
			case <-quit:
				return
			}
		}
	}()
	for range requests {
		o.asked <- struct{}{}
		for waiting := true; waiting; {
			select {
			case text := <-o.answer:
				io.WriteString(c, text)
				waiting = false
			case _, ok := <-requests:
				if !ok {
					return
				}
			}
		}
	}
}

// TestClientGivesUp: a client that closes while it waits gets code 0 and DC,
// whether its socket says so by a reset, by its end alone, or only when the
// response comes.
func TestClientGivesUp(t *testing.T) {
	for _, tc := range []struct {
		name   string
		abort  func(*net.TCPConn)
		answer bool
	}{
		{"reset", func(c *net.TCPConn) { c.SetLinger(0); c.Close() }, false},
		{"close after a while", func(c *net.TCPConn) {
			<-time.NewTimer(3 * reapTick).C
			c.Close()
		}, false},
		{"close just before the response", func(c *net.TCPConn) { c.Close() }, true},
		{"reset just before the response", func(c *net.TCPConn) { c.SetLinger(0); c.Close() }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := newHeld()
			h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, serveRaw(t, o.serve)), nil)
			c := h.dial(t)
			io.WriteString(c, plainRequest)
			await(t, o.asked)
			tc.abort(c)
			answer := o.answer
			if !tc.answer {
				answer = nil
			}
			select {
			case answer <- "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok":
			case <-o.ended: // the origin learns of it
			case <-time.NewTimer(patience).C:
				t.Fatal("the request neither got its response nor was given up")
			}
			if e := h.lastEntry(t, 1); e.Code != 0 || e.Flags != telemetry.FlagDC {
				t.Errorf("recorded as %d %s, want 0 DC", e.Code, e.Flags)
			}
		})
	}
}

// A client that closes before the head comes has got nothing, though the kernel
// takes the head from the proxy before the content is refused.
func TestClientLeavesBeforeHead(t *testing.T) {
	asked, left := make(chan struct{}), make(chan struct{})
	h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, serveRaw(t, func(c *net.TCPConn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		close(asked)
		<-left
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
		for range 1000 {
			io.WriteString(c, strings.Repeat("x", 1000))
		}
	})), nil)
	c := h.dial(t)
	io.WriteString(c, plainRequest)
	await(t, asked)
	c.Close()
	close(left)
	if e := h.lastEntry(t, 1); e.Code != 0 || e.Flags != telemetry.FlagDC {
		t.Errorf("recorded as %d %s, want 0 DC", e.Code, e.Flags)
	}
}

// A client that takes the head and closes before the content comes has got the
// head's code, also when earlier responses went over its connection.
func TestClientLeavesAtHead(t *testing.T) {
	left := make(chan struct{})
	h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, serveRaw(t, func(c *net.TCPConn) {
		in := bufio.NewReader(c)
		for _, text := range []string{"200 OK\r\nContent-Length: 0", "204 No Content", "404 Not Found\r\nContent-Length: 2"} {
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 "+text+"\r\n\r\n")
		}
		select {
		case <-left:
			io.WriteString(c, "ok")
		case <-t.Context().Done():
		}
	})), nil)
	c := h.dial(t)
	in := bufio.NewReader(c)
	for range 3 {
		io.WriteString(c, plainRequest)
		if _, err := http.ReadResponse(in, nil); err != nil {
			t.Fatal(err)
		}
	}
	c.Close() // its end is there when this returns
	close(left)
	if e := h.lastEntry(t, 3); e.Code != http.StatusNotFound {
		t.Errorf("recorded as %d %s, want 404", e.Code, e.Flags)
	}
}

// A request that was sent on and not answered ends with the route's timeout. On a
// busy machine a short one is over before the request is sent on.
func TestRouteTimeout(t *testing.T) {
	for timeout := 50 * time.Millisecond; ; timeout *= 4 {
		o := newHeld()
		h := startHop(t, webConfig(mesh.ProtocolHTTP, timeout, serveRaw(t, o.serve)), nil)
		c := h.dial(t)
		io.WriteString(c, plainRequest)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != http.StatusGatewayTimeout || string(body) != "upstream request timeout" {
			t.Errorf("got %d %q", res.StatusCode, body)
		}
		c.Close()
		if e := h.lastEntry(t, 1); e.Code != http.StatusGatewayTimeout || e.Flags != telemetry.FlagUT {
			t.Errorf("recorded as %d %s, want 504 UT", e.Code, e.Flags)
		}
		select {
		case <-o.asked:
			return
		default:
			if timeout > patience {
				t.Fatalf("the origin was never asked within %s", timeout)
			}
		}
	}
}

// deafListener is an address that neither accepts nor refuses connections.
func deafListener(t *testing.T) string {
	t.Helper()
	fd, at := boundSocket(t)
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	addr := at.String()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	// For a listener these two are the length of its queue and the limit
	// (tcp_get_info in the kernel); above the limit handshakes are dropped.
	until(t, "its queue is full", func() bool {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Fatal(err)
		}
		return info.Unacked > info.Sacked
	})
	return addr
}

// The time that a route allows includes connecting, and who does not want the
// response any more is not connected for.
func TestConnectingIsBounded(t *testing.T) {
	at := deafListener(t)
	cfg := func(timeout time.Duration) *mesh.NodeConfig {
		cfg := webConfig(mesh.ProtocolHTTP, timeout, at)
		cfg.Clusters[0].ConnectTimeout = time.Minute
		return cfg
	}
	t.Run("route", func(t *testing.T) {
		h := startHop(t, cfg(100*time.Millisecond), nil)
		c := h.dial(t)
		io.WriteString(c, plainRequest)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || res.StatusCode != http.StatusGatewayTimeout {
			t.Fatalf("got %v, %v", res, err)
		}
		c.Close()
		if e := h.lastEntry(t, 1); e.Code != http.StatusGatewayTimeout || e.Flags != telemetry.FlagUT {
			t.Errorf("recorded as %d %s, want 504 UT", e.Code, e.Flags)
		}
	})
	t.Run("client", func(t *testing.T) {
		h := startHop(t, cfg(0), nil)
		c := h.dial(t)
		io.WriteString(c, plainRequest)
		until(t, "it is connecting", func() bool {
			conns := h.p.connections(mesh.Outbound)
			return len(conns) == 1 && conns[0].watch.giveUp.Load() != nil
		})
		c.SetLinger(0)
		c.Close()
		if e := h.lastEntry(t, 1); e.Code != 0 || e.Flags != telemetry.FlagDC {
			t.Errorf("recorded as %d %s, want 0 DC", e.Code, e.Flags)
		}
	})
}

func TestSlowHead(t *testing.T) {
	h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, "127.0.0.1:1"), func(o *Options) { o.HeaderTimeout = 100 * time.Millisecond })
	c := h.dial(t)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: w")
	got, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 408 Request Timeout\r\n") {
		t.Errorf("got %q, %v", got, err)
	}
}

// A body that stops arriving is not waited for for ever, whether the response
// has begun or not; one that arrives slowly is. It does not arrive slowly but stops
// when a busy machine stalls the test: then the try proves nothing.
func TestSlowBody(t *testing.T) {
	for limit := 1500 * time.Millisecond; !slowBody(t, limit); limit *= 2 {
		if limit > 10*time.Second {
			t.Fatalf("the test was stalled for half of %s", limit)
		}
	}
}

func slowBody(t *testing.T, limit time.Duration) (proven bool) {
	t.Helper()
	origin := newHeld()
	h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, serveRaw(t, origin.serve)), func(o *Options) { o.BodyIdleTimeout = limit })
	c := h.dial(t)
	pieces := append([]string{"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 20\r\n\r\n"}, strings.Split(strings.Repeat("slow", 5), "")...)
	if longest, err := trickle(t, c, limit*4/3, pieces...); longest > limit/2 {
		return false
	} else if err != nil {
		t.Fatal(err)
	}
	await(t, origin.asked)
	pause(t.Context(), limit*4/3) // waiting for a response has no limit
	origin.answer <- "HTTP/1.1 204 No Content\r\n\r\n"
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != http.StatusNoContent {
		t.Fatalf("response to a slow body: %v, %v", res, err)
	}
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 100\r\n\r\nabc")
	got, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 408 Request Timeout\r\n") {
		t.Errorf("got %q, %v", got, err)
	}
	if e := h.lastEntry(t, 2); e.Code != http.StatusRequestTimeout || e.Flags != telemetry.FlagSI {
		t.Errorf("recorded as %d %s, want 408 SI", e.Code, e.Flags)
	}
	return true
}

// A connection without a request ends in order. On a busy machine a short limit is
// over before the first request is there.
func TestIdleClient(t *testing.T) {
	for limit := 100 * time.Millisecond; ; limit *= 4 {
		h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, serveRaw(t, kilobyte)), func(o *Options) { o.IdleTimeout = limit })
		began := time.Now()
		c := h.dial(t)
		io.WriteString(c, plainRequest)
		r := bufio.NewReader(c)
		res, err := http.ReadResponse(r, nil)
		if took := time.Since(began); err != nil && took >= limit && limit < patience {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("an idle connection ended with %v, want EOF", err)
		}
		return
	}
}

func TestNoUpstream(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		flags      telemetry.Flags
		endpoints  []string
	}{
		{"none", "no healthy upstream", telemetry.FlagUH, nil},
		{"refused", "upstream connect error or disconnect/reset before headers. reset reason: connection failure", telemetry.FlagUF, []string{closedPort(t).String()}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, tc.endpoints...), nil)
			c := h.dial(t)
			io.WriteString(c, plainRequest)
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			if res.StatusCode != http.StatusServiceUnavailable || string(body) != tc.body {
				t.Errorf("got %d %q", res.StatusCode, body)
			}
			c.Close()
			e := h.lastEntry(t, 1)
			if e.Code != http.StatusServiceUnavailable || e.Flags != tc.flags || e.Service != "web.default.svc.cluster.local" {
				t.Errorf("recorded as %d %s for %s", e.Code, e.Flags, e.Service)
			}
		})
	}
}

// TestDrain: requests in flight are finished and told to close, new
// connections are refused, and a connection that stays is closed by force.
func TestDrain(t *testing.T) {
	o := newHeld()
	h := startInbound(t, serveRaw(t, o.serve), func(o *Options) { o.DrainIdleGrace = time.Millisecond })
	c, idle := h.dial(t), h.dial(t)
	io.WriteString(c, plainRequest)
	await(t, o.asked)
	drained := make(chan error)
	go func() { drained <- h.p.Drain(context.Background()) }()
	until(t, "connections are refused", func() bool {
		probe, err := net.Dial("tcp", h.addr)
		if err == nil {
			probe.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the idle connection ended with %v", err)
	}
	o.answer <- "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	got, err := io.ReadAll(c)
	if want := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"; string(got) != want || err != nil {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if err := <-drained; err != nil {
		t.Errorf("drain: %v", err)
	}
}

// TestQuiesceCutsNothing: a request that takes longer than there is time goes on, and so
// does an opaque connection, for which nobody waits long.
func TestQuiesceCutsNothing(t *testing.T) {
	o := newHeld()
	h := startInbound(t, serveRaw(t, o.serve), nil)
	c := h.dial(t)
	io.WriteString(c, plainRequest)
	await(t, o.asked)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	h.p.Quiesce(ctx)
	if err := context.Cause(ctx); err == nil {
		t.Error("a request in flight was not waited for")
	}
	o.answer <- "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("the request that was in flight: %v, %v", resp, err)
	}

	cfg, bind := inboundConfig(t, serveRaw(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) }))
	cfg.Listeners[0].Protocol = mesh.ProtocolTCP
	h = startHop(t, cfg, nil)
	h.addr = bind.String()
	c = h.dial(t)
	echo := func(text string) {
		t.Helper()
		got := make([]byte, len(text))
		_, _ = io.WriteString(c, text)
		if _, err := io.ReadFull(c, got); string(got) != text || err != nil {
			t.Errorf("echo %q, %v; want %q", got, err, text)
		}
	}
	echo("before")
	ctx, cancel = context.WithTimeout(t.Context(), patience)
	defer cancel()
	h.p.Quiesce(ctx)
	if err := context.Cause(ctx); err != nil {
		t.Errorf("an opaque connection was waited for: %v", err)
	}
	echo("after")
}

func TestDrainByForce(t *testing.T) {
	o := newHeld()
	h := startInbound(t, serveRaw(t, o.serve), nil)
	c := h.dial(t)
	io.WriteString(c, plainRequest)
	await(t, o.asked)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := h.p.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drain: %v, want %v", err, context.DeadlineExceeded)
	}
	until(t, "the connection has ended", func() bool { return len(h.p.connections(mesh.Inbound)) == 0 })
	if got := h.p.Stats().ForcedCloses; got != 1 {
		t.Errorf("%d connections closed by force, want 1", got)
	}
}

// TestProgramSeesItsClients: each client address gets connections of its own.
func TestProgramSeesItsClients(t *testing.T) {
	origin := serveRaw(t, kilobyte)
	cfg, bind := inboundConfig(t, origin)
	var dialled atomic.Pointer[[]string]
	dialled.Store(&[]string{})
	h := startHop(t, cfg, func(o *Options) {
		o.ProgramIdleTimeout = patience // what is used again must not have ended meanwhile
		o.DialProgram = func(ctx context.Context, source netip.Addr, _ netip.AddrPort) (net.Conn, error) {
			list := append(*dialled.Load(), source.String())
			dialled.Store(&list)
			var d net.Dialer
			return d.DialContext(ctx, "tcp", origin)
		}
	})
	for _, from := range []string{"127.0.0.1", mesh.IP(testNet, 2).String(), mesh.IP(testNet, 2).String()} {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))}
		c, err := d.Dial("tcp", bind.String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, strings.Replace(plainRequest, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
		io.Copy(io.Discard, c)
		c.Close()
	}
	if got, want := strings.Join(*dialled.Load(), " "), "127.0.0.1 10.77.0.2"; got != want {
		t.Errorf("the program was dialled for %s, want %s", got, want)
	}
	if e := h.lastEntry(t, 3); e.Service != "web" {
		t.Errorf("service is %q", e.Service)
	}
}
