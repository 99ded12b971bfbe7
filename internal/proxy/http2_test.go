package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func TestHTTP2Exchange(t *testing.T) {
	type seen struct {
		Method, Host, URI, Body string
		Header                  http.Header
		Trailer                 http.Header
	}
	got := make(chan seen, 1)
	at := h2Origin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Early", "1")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("X-Early")
		body, _ := io.ReadAll(r.Body)
		r.Header.Del("X-Request-Id")
		got <- seen{r.Method, r.Host, r.RequestURI, string(body), r.Header, r.Trailer}
		w.Header().Set("X-Answer", "yes")
		w.Header().Set("Date", "today")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "short and stout")
		w.Header().Set(http.TrailerPrefix+"X-Last", "z")
	})
	r := newRig(t, mesh.ProtocolHTTP2, at)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://Web.example:80/a//b/../c%20d?x=%2f&y", strings.NewReader("content"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{
		"User-Agent": nil, "X-Two": {"a", "b"}, "Te": {"trailers"},
		"X-Envoy-Peer-Metadata": {"forged"}, "X-Forwarded-Client-Cert": {"forged"},
	}
	req.ContentLength = -1
	req.Trailer = http.Header{"X-Sum": {"7"}}
	res, err := r.h2Client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	want := seen{
		"PUT", "Web.example:80", "/a/c%20d?x=%2f&y", "content",
		http.Header{"X-Two": {"a", "b"}, "Te": {"trailers"}, "X-Forwarded-Proto": {"http"}, "Trailer": {"X-Sum"}},
		http.Header{"X-Sum": {"7"}},
	}
	have := await(t, got)
	delete(have.Header, "User-Agent") // the client library insists on one
	delete(have.Header, "Trailer")
	delete(want.Header, "Trailer")
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("request at the origin (-want +got):\n%s", diff)
	}
	if res.StatusCode != http.StatusTeapot || string(body) != "short and stout" {
		t.Errorf("%d %q", res.StatusCode, body)
	}
	if diff := cmp.Diff(http.Header{"X-Answer": {"yes"}, "Date": {"today"}, "Content-Length": {"15"}, "Content-Type": {"text/plain; charset=utf-8"}}, res.Header); diff != "" {
		t.Errorf("response head (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(http.Header{"X-Last": {"z"}}, res.Trailer); diff != "" {
		t.Errorf("trailers (-want +got):\n%s", diff)
	}
	r.wantSeries(t, "1", "istio_requests_total", requestLabels("http", "418", "", "-")...)
}

// Each piece of a response leaves at once, and of a request too.
func TestHTTP2StreamsBothWays(t *testing.T) {
	at := h2Origin(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		b := make([]byte, 1)
		for {
			if _, err := r.Body.Read(b); err != nil {
				return
			}
			_, _ = w.Write(b)
			_ = http.NewResponseController(w).Flush()
		}
	})
	r := newRig(t, mesh.ProtocolHTTP, at)
	pr, pw := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://web/", pr)
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.h2Client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	for _, s := range []string{"a", "b", "c"} {
		mustWrite(t, pw, s)
		if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != s {
			t.Fatalf("read %q, %v; want %q", b, err, s)
		}
	}
	pw.Close()
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) != 0 {
		t.Errorf("rest %q, %v", rest, err)
	}
	res.Body.Close()
	r.wantSeries(t, "1", "istio_requests_total", requestLabels("http", "200", "", "-")...)
}

// A client that does not read holds up the origin: nothing piles up between.
func TestHTTP2Backpressure(t *testing.T) {
	var written atomic.Int64
	at := h2Origin(t, func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 16<<10)
		for range 64 << 6 { // 64 MiB
			n, err := w.Write(chunk)
			written.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	r := newRig(t, mesh.ProtocolHTTP2, at)
	c := r.dial(t)
	f := h2Raw(t, c)
	f.request(t, 1, true, ":method", "GET", ":scheme", "http", ":authority", "web", ":path", "/")
	// The client's window of 65,535 bytes is used up; what the proxy and the
	// sockets hold comes to a standstill well below what the origin has.
	got := 0
	for got < 65535 {
		if d, ok := f.next(t).(*http2.DataFrame); ok {
			got += len(d.Data())
		}
	}
	last := int64(-1)
	until(t, "origin stands still", func() bool {
		now := written.Load()
		still := now == last && now > 0
		last = now
		pause(t.Context(), 20*time.Millisecond)
		return still
	})
	if n := written.Load(); n > 1<<20 {
		t.Errorf("the origin could write %d bytes to a client that reads none", n)
	}
	c.Close()
	r.wantSeries(t, "1", "istio_requests_total", requestLabels("http", "200", "", "DC")...)
}

func TestHTTP2OriginFailures(t *testing.T) {
	t.Run("reset before the response", func(t *testing.T) {
		at := h2Origin(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		r := newRig(t, mesh.ProtocolHTTP2, at)
		res := r.h2Get(t)
		if res != "503 upstream connect error or disconnect/reset before headers. reset reason: remote reset" {
			t.Errorf("answer %q", res)
		}
		r.wantSeries(t, "1", "istio_requests_total", requestLabels("http", "503", "", "UR")...)
	})
	t.Run("reset within the response", func(t *testing.T) {
		at := h2Origin(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		r := newRig(t, mesh.ProtocolHTTP2, at)
		if res := r.h2Get(t); !strings.Contains(res, "stream error") {
			t.Errorf("answer %q, want a stream error", res)
		}
		r.wantSeries(t, "1", "istio_requests_total", requestLabels("http", "200", "", "UR")...)
	})
	t.Run("connection closed before the response", func(t *testing.T) {
		at := origin(t, func(c *net.TCPConn) { _, _ = io.ReadFull(c, make([]byte, 100)) })
		r := newRig(t, mesh.ProtocolHTTP2, at)
		if res := r.h2Get(t); !strings.HasPrefix(res, "503 ") {
			t.Errorf("answer %q", res)
		}
		r.wantSeries(t, "1", "istio_requests_total", requestLabels("http", "503", "", "UC")...)
	})
	t.Run("no HTTP/2 there", func(t *testing.T) {
		at := origin(t, func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
		})
		r := newRig(t, mesh.ProtocolHTTP2, at)
		if res := r.h2Get(t); !strings.HasPrefix(res, "50") {
			t.Errorf("answer %q", res)
		}
	})
	t.Run("route timeout", func(t *testing.T) {
		at := h2Origin(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		r := newRig(t, mesh.ProtocolHTTP2)
		cfg := r.config(mesh.ProtocolHTTP2, at)
		cfg.Routes[0].VirtualHosts[0].Routes[0].Timeout = 20 * time.Millisecond
		if err := r.p.Apply(cfg); err != nil {
			t.Fatal(err)
		}
		if res := r.h2Get(t); res != "504 upstream request timeout" {
			t.Errorf("answer %q", res)
		}
		r.wantSeries(t, "1", "istio_requests_total", requestLabels("http", "504", "", "UT")...)
	})
}

// h2Get is the status and body of GET /, or the error.
func (r *rig) h2Get(t *testing.T) string {
	t.Helper()
	res, err := r.h2Client(t).Get("http://web/")
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", res.StatusCode, b)
}

// A client that goes before the response gets the code 0.
func TestHTTP2ClientGoesBeforeTheResponse(t *testing.T) {
	asked := make(chan struct{})
	at := h2Origin(t, func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})
	r := newRig(t, mesh.ProtocolHTTP2, at)
	c := r.dial(t)
	h2Raw(t, c).request(t, 1, true, ":method", "GET", ":scheme", "http", ":authority", "web", ":path", "/")
	await(t, asked)
	c.Close()
	r.wantSeries(t, "1", "istio_requests_total", requestLabels("http", "0", "", "DC")...)
}

// Requests of one connection are spread over the endpoints.
func TestHTTP2BalancesRequests(t *testing.T) {
	var hits [2]atomic.Int64
	var at [2]netip.AddrPort
	for i := range at {
		at[i] = h2Origin(t, func(http.ResponseWriter, *http.Request) { hits[i].Add(1) })
	}
	r := newRig(t, mesh.ProtocolHTTP2, at[:]...)
	client := r.h2Client(t)
	const n = 200
	for range n {
		res, err := client.Get("http://web/")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	if a, b := hits[0].Load(), hits[1].Load(); a+b != n || a < n/4 || b < n/4 {
		t.Errorf("hits %d and %d of %d", a, b, n)
	}
	r.wantSeries(t, strconv.Itoa(n), "istio_requests_total", requestLabels("http", "200", "", "-")...)
	conns := uint64(0)
	for _, m := range r.p.snap.Load().clusters["outbound|80||web.default.svc.cluster.local"].Members {
		conns += m.Counts().TotalConnection
	}
	if conns != 2 {
		t.Errorf("%d connections, want one to each endpoint", conns)
	}
}

// An endpoint that is told to stop refuses new streams with GOAWAY: the proxy
// sends them elsewhere, and none is lost.
func TestHTTP2SurvivesGoAway(t *testing.T) {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	at := closedPort(t)
	ln, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	first := &http.Server{Protocols: &p, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go func() { _ = first.Serve(ln) }()
	r := newRig(t, mesh.ProtocolHTTP2, at)
	if res := r.h2Get(t); res != "200 " {
		t.Fatal(res)
	}
	if err := first.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	again, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	second := &http.Server{Protocols: &p, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "second") })}
	go func() { _ = second.Serve(again) }()
	defer second.Close()
	if res := r.h2Get(t); res != "200 second" {
		t.Errorf("answer %q", res)
	}
}

// A request with a body that the endpoint refused is sent again with all of its
// body.
func TestHTTP2RefusedStreamIsSentAgain(t *testing.T) {
	var rounds atomic.Int64
	at := origin(t, func(c *net.TCPConn) {
		f := h2Serve(t, c)
		body := ""
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			switch fr := frame.(type) {
			case *http2.DataFrame:
				body += string(fr.Data())
				if !fr.StreamEnded() {
					continue
				}
				if rounds.Add(1) == 1 {
					body = ""
					_ = f.WriteRSTStream(fr.StreamID, http2.ErrCodeRefusedStream)
					continue
				}
				f.respond(fr.StreamID, body)
			case *http2.PingFrame:
				if !fr.IsAck() {
					_ = f.WritePing(true, fr.Data)
				}
			}
		}
	})
	r := newRig(t, mesh.ProtocolHTTP2, at)
	res, err := r.h2Client(t).Post("http://web/", "text/plain", strings.NewReader("once more"))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if string(b) != "once more" || rounds.Load() != 2 {
		t.Errorf("answer %q after %d rounds", b, rounds.Load())
	}
	r.wantSeries(t, "1", "istio_requests_total", requestLabels("http", "200", "", "-")...)
	r.wantSeries(t, "1", "vitrine_upstream_retries_total", "reason=not_processed")
}

// Heads that HTTP/2 forbids do not reach the origin, and each is on record.
func TestHTTP2ForbiddenHeads(t *testing.T) {
	for _, tc := range []struct {
		name   string
		fields []string
	}{
		{"connection", []string{"connection", "close"}},
		{"te", []string{"te", "gzip"}},
		{"transfer-encoding", []string{"transfer-encoding", "chunked"}},
		{"upgrade", []string{"upgrade", "h2c"}},
		{"upper case", []string{"X-Upper", "1"}},
		{"late pseudo field", []string{"x", "1", ":path", "/evil"}},
		{"line feed", []string{"x", "a\nb"}},
		{"space in a name", []string{"x y", "1"}},
		{"two paths", []string{":path", "/evil"}},
		{"too large", []string{"x", strings.Repeat("a", h2MaxHeaderBytes+1024)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var hits atomic.Int64
			at := h2Origin(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
			r := newRig(t, mesh.ProtocolHTTP2, at)
			c := r.dial(t)
			f := h2Raw(t, c)
			f.request(t, 1, true, append([]string{":method", "GET", ":scheme", "http", ":authority", "web", ":path", "/"}, tc.fields...)...)
			var code string
		wait:
			for {
				switch fr := f.next(t).(type) {
				case *http2.MetaHeadersFrame:
					code = fr.PseudoValue("status")
					break wait
				case *http2.RSTStreamFrame, *http2.GoAwayFrame, nil:
					code = "reset"
					break wait
				}
			}
			if code != "400" && code != "431" && code != "reset" {
				t.Errorf("answered with %s", code)
			}
			c.Close()
			r.wantSeries(t, "1", "istio_requests_total", "response_code=400", "response_flags=DPE")
			if n := hits.Load(); n != 0 {
				t.Errorf("%d requests reached the origin", n)
			}
		})
	}
}
