//lint:file-ignore SA1019 see http2.go
package proxy

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

// Requests that come after the proxy has said GOAWAY were seen by nobody: the
// client sends them again elsewhere, where they count.
func TestHTTP2RequestsAfterGoAwayDoNotCount(t *testing.T) {
	release, asked := make(chan struct{}), make(chan struct{})
	at := h2Origin(t, func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-release
		_, _ = io.WriteString(w, "done")
	})
	r := newRigWith(t, Options{DrainIdleGrace: time.Millisecond}, mesh.ProtocolHTTP2, at)
	c := r.dial(t)
	f := h2Raw(t, c)
	get := []string{":method", "GET", ":scheme", "http", ":authority", "web", ":path", "/"}
	f.request(t, 1, true, get...)
	await(t, asked)
	drained := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		drained <- r.p.Drain(ctx)
	}()
	body, told := "", false
	for body != "done" {
		switch fr := f.next(t).(type) {
		case *http2.GoAwayFrame:
			if !told {
				told = true
				f.request(t, 3, true, get...)
				f.request(t, 5, true, get...)
				if err := f.WritePing(false, [8]byte{1}); err != nil {
					t.Fatal(err)
				}
			}
		case *http2.PingFrame: // they have been read
			close(release)
		case *http2.DataFrame:
			body += string(fr.Data())
		case nil:
			t.Fatalf("closed after %q, go away %t", body, told)
		}
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	r.wantSeries(t, "1", "istio_requests_total", requestLabels("http", "200", "", "-")...)
	if got := strings.Count(r.istio(t), "istio_requests_total{"); got != 1 {
		t.Errorf("%d series of requests, want 1:\n%s", got, r.istio(t))
	}
}

// A head that never came to its end is no request.
func TestHTTP2UnfinishedHeadDoesNotCount(t *testing.T) {
	asked := make(chan struct{}, 1)
	r := newRig(t, mesh.ProtocolHTTP2, h2Origin(t, func(http.ResponseWriter, *http.Request) { asked <- struct{}{} }))
	c := r.dial(t)
	f := h2Raw(t, c)
	f.request(t, 1, true, ":method", "GET", ":scheme", "http", ":authority", "web", ":path", "/")
	await(t, asked)
	mustWrite(t, c, "\x00\x00\x20\x01\x05\x00\x00\x00\x03\x82") // 1 of 32 bytes of HEADERS
	c.CloseWrite()
	for f.next(t) != nil {
	}
	c.Close()
	until(t, "the connection has ended", func() bool { return len(r.p.connections(mesh.Outbound)) == 0 })
	if got := r.istio(t); strings.Contains(got, `destination_service="unknown"`) {
		t.Errorf("the head without an end counts:\n%s", got)
	}
}

// A stream is accounted for once, by whoever takes it first: a goroutine that
// begins after the end of its connection serves nothing.
func TestHTTP2StreamIsAccountedForOnce(t *testing.T) {
	r := newRig(t, mesh.ProtocolHTTP2, closedPort(t))
	s := newH2Conn(&conn{p: r.p, dir: mesh.Outbound})
	s.opens(1)
	s.opens(3)
	s.opens(5)
	if _, ok := s.take(1, h2refused); !ok {
		t.Error("stream 1 did not wait")
	}
	s.settle(t.Context(), 0)
	s.opens(7)
	for _, id := range []uint32{1, 3, 5, 7} {
		if _, ok := s.take(id, h2served); ok {
			t.Errorf("stream %d is served after the end", id)
		}
	}
	s.ServeHTTP(httptest.NewRecorder(), nil)
	r.wantSeries(t, "1", "istio_requests_total", "response_code=400", "response_flags=DPE")
	r.wantSeries(t, "2", "istio_requests_total", "response_code=0", "response_flags=DC")
}

// Frames are found however the bytes are cut.
// A request that has chosen an endpoint before the endpoint left the mesh is
// served by it, on a connection of its own.
func TestHTTP2EndpointLeavesWhileItIsChosen(t *testing.T) {
	at := h2Origin(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "late") })
	r := newRig(t, mesh.ProtocolHTTP2, at)
	e := upstream.NewEndpoint(at, r.p.dialPeer(at), r.p.peerLimits())
	d := destination{endpoint: e, cluster: &cluster{Cluster: &upstream.Cluster{Cluster: mesh.Cluster{ConnectTimeout: patience}}}}
	s := r.p.h2sessionOf(&d)
	e.Close()
	for range 2 {
		ctx := context.WithValue(t.Context(), h2callKey{}, &h2call{dest: &d})
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://web/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := s.transport.RoundTrip(req) //nolint:staticcheck // see http2.go
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || string(body) != "late" {
			t.Errorf("answer %q, %v", body, err)
		}
	}
	until(t, "its connections are closed", func() bool { return e.Counts().ActiveConnections == 0 })
	if got := e.Counts().TotalConnection; got != 2 {
		t.Errorf("%d connections for 2 requests", got)
	}
}
