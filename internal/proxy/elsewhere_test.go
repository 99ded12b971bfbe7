package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// TestEndedEndpoint: a request whose endpoint refuses the connection is taken to
// another one, whatever its method, body and protocol.
func TestEndedEndpoint(t *testing.T) {
	gone := closedPort(t)
	live := serveRaw(t, kilobyte)
	h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, gone.String(), live), nil)
	c := h.dial(t)
	r := bufio.NewReader(c)
	const n = 30
	for range n {
		io.WriteString(c, plainRequest)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("got %d, %v", res.StatusCode, err)
		}
	}
	c.Close()
	h.lastEntry(t, n)
	for _, e := range h.rec.AccessLog(n) {
		if e.Code != http.StatusOK || e.Flags != 0 || e.Upstream.String() != live {
			t.Errorf("recorded as %d %s at %s, want 200 at %s", e.Code, e.Flags, e.Upstream, live)
		}
	}
	for _, m := range h.p.snap.Load().clusters["outbound|80||web.default.svc.cluster.local"].Members {
		if m.Active() != 0 {
			t.Errorf("%s has %d requests under way, want none", m.Addr(), m.Active())
		}
	}
}

func TestHTTP2EndedEndpoint(t *testing.T) {
	origin := h2Origin(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	r := newRig(t, mesh.ProtocolHTTP2, closedPort(t), origin)
	client := r.h2Client(t)
	body := strings.Repeat("x", 100_000)
	const n = 30
	for range n {
		res, err := client.Post("http://web/", "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || string(got) != body || res.StatusCode != http.StatusOK {
			t.Fatalf("got %d and %d bytes, %v", res.StatusCode, len(got), err)
		}
	}
	r.wantSeries(t, strconv.Itoa(n), "istio_requests_total", requestLabels("http", "200", "", "-")...)
}

// TestTCPEndedEndpoint: so is an opaque connection, whoever speaks first on it, as
// long as one endpoint is left.
func TestTCPEndedEndpoint(t *testing.T) {
	greet := func(c *net.TCPConn) {
		io.WriteString(c, "220 ready\r\n")
		echo(c)
	}
	for _, tc := range []struct {
		name     string
		protocol mesh.Protocol
		handle   func(*net.TCPConn)
		greeting string
	}{
		{"declared", mesh.ProtocolTCP, echo, ""},
		{"server first", mesh.ProtocolAuto, greet, "220 ready\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, tc.protocol, closedPort(t), origin(t, tc.handle))
			const n = 20
			for range n {
				c := r.dial(t)
				if tc.greeting != "" {
					if got := mustRead(t, c, len(tc.greeting)); got != tc.greeting {
						t.Fatalf("the server's first bytes are %q", got)
					}
				}
				mustWrite(t, c, "hello")
				if got := mustRead(t, c, 5); got != "hello" {
					t.Fatalf("echoed %q", got)
				}
				c.Close()
			}
			r.wantSeries(t, strconv.Itoa(n), "istio_tcp_connections_closed_total", "response_flags=-")
			if got := r.series(t, "istio_tcp_connections_closed_total", "response_flags=UF"); got != "" {
				t.Errorf("%s connections failed", got)
			}
			retries, err := strconv.Atoi(r.series(t, "vitrine_upstream_retries_total", "reason=connect_failure"))
			if err != nil || retries < 1 || retries > n*connectRetries {
				t.Errorf("%d retries are counted (%v), want some", retries, err)
			}
			for _, m := range r.p.snap.Load().clusters["outbound|80||web.default.svc.cluster.local"].Members {
				until(t, "no connection is under way", func() bool { return m.Active() == 0 })
			}
		})
	}
}

// TestGRPCEndedEndpoint: messages count for the edge that they were sent on.
func TestGRPCEndedEndpoint(t *testing.T) {
	r := newRig(t, mesh.ProtocolGRPC, closedPort(t), grpcOrigin(t))
	client, _ := r.grpcClient(t)
	const n = 30
	for range n {
		if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
			t.Fatal(err)
		}
	}
	r.wantSeries(t, strconv.Itoa(n), "istio_requests_total", requestLabels("grpc", "200", "0", "-")...)
	var page bytes.Buffer
	if err := r.rec.WriteMetrics(&page, 0); err != nil {
		t.Fatal(err)
	}
	requests, messages := "", ""
	for line := range strings.Lines(page.String()) {
		name, labels, _ := strings.Cut(line, "{")
		labels, value, _ := strings.Cut(labels, "} ")
		labels, _, _ = strings.Cut(labels, ",request_protocol=")
		switch name {
		case "istio_requests_total":
			requests += labels + value
		case "istio_request_messages_total":
			messages += labels + value
		}
	}
	if requests != messages || messages == "" {
		t.Errorf("messages\n%swere counted elsewhere than requests\n%s", messages, requests)
	}
}
