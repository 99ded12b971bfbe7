package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

// The log names our end of the connection to the upstream, and whom the request
// is for.
func TestLogHasBothEnds(t *testing.T) {
	check := func(t *testing.T, e telemetry.Entry, seen, forwardedFor string) {
		t.Helper()
		if e.UpstreamLocal.String() != seen || e.ForwardedFor != forwardedFor {
			t.Errorf("logged %v for %q, want %s for %q", e.UpstreamLocal, e.ForwardedFor, seen, forwardedFor)
		}
	}
	t.Run("HTTP/1", func(t *testing.T) {
		seen := make(chan string, 1)
		at := serveRaw(t, func(c *net.TCPConn) {
			seen <- c.RemoteAddr().String()
			answerOK(c)
		})
		h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, at), nil)
		c := h.dial(t)
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\nx-Forwarded-For: 10.77.0.9\r\nX-Forwarded-For: 10.77.0.8\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
		c.Close()
		check(t, h.lastEntry(t, 1), <-seen, "10.77.0.9")
	})
	t.Run("HTTP/2", func(t *testing.T) {
		seen := make(chan string, 1)
		at := h2Origin(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r.RemoteAddr })
		h := startHop(t, webConfig(mesh.ProtocolHTTP2, 0, at.String()), nil)
		f := h2Raw(t, h.dial(t))
		f.request(t, 1, true, ":method", "GET", ":scheme", "http", ":authority", "web", ":path", "/", "x-forwarded-for", "10.77.0.9")
		check(t, h.lastEntry(t, 1), <-seen, "10.77.0.9")
	})
	t.Run("TCP", func(t *testing.T) {
		seen := make(chan string, 1)
		at := origin(t, func(c *net.TCPConn) {
			seen <- c.RemoteAddr().String()
			echo(c)
		})
		r := newRig(t, mesh.ProtocolTCP, at)
		c := r.dial(t)
		mustWrite(t, c, "x")
		mustRead(t, c, 1)
		c.Close()
		var log []telemetry.Entry
		until(t, "the connection is logged", func() bool { log = r.rec.AccessLog(1); return len(log) == 1 })
		local := netip.MustParseAddrPort(<-seen)
		check(t, log[0], local.String(), "")
	})
}
