package proxy

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// kilobyte is an origin that answers every request with 1 KiB, without
// allocating.
func kilobyte(c *net.TCPConn) {
	response := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n" + strings.Repeat("x", 1024))
	buf := make([]byte, 4096)
	n := 0
	for {
		m, err := c.Read(buf[n:])
		if err != nil {
			return
		}
		n += m
		for {
			i := bytes.Index(buf[:n], []byte("\r\n\r\n"))
			if i < 0 {
				break
			}
			n = copy(buf, buf[i+4:n])
			if _, err := c.Write(response); err != nil {
				return
			}
		}
	}
}

const plainRequest = "GET /index.html?q=1 HTTP/1.1\r\nHost: web\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n"

// roundTripper sends the same request again and again and reads a response of
// known size, without allocating.
func roundTripper(t testing.TB, h *hop) func() {
	c := h.dial(t)
	request := []byte(plainRequest)
	response := make([]byte, 8192)
	size := 0
	return func() {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		if size == 0 {
			n, err := c.Read(response)
			if err != nil {
				t.Fatal(err)
			}
			size = n
			return
		}
		if _, err := io.ReadFull(c, response[:size]); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHopDoesNotAllocate holds the whole hop, with client and origin in the
// same process, to no allocation per request in the steady state.
func TestHopDoesNotAllocate(t *testing.T) {
	for _, dir := range []string{"outbound", "inbound"} {
		t.Run(dir, func(t *testing.T) {
			h := startKilobyte(t, dir)
			trip := roundTripper(t, h)
			for range 200 {
				trip()
			}
			if got := testing.AllocsPerRun(2000, trip); got != 0 {
				t.Errorf("%v allocations per request, want 0", got)
			}
		})
	}
}

func startKilobyte(t testing.TB, dir string) *hop {
	origin := serveRaw(t, kilobyte)
	if dir == "outbound" {
		return startHop(t, webConfig(mesh.ProtocolHTTP, 0, origin), nil)
	}
	return startInbound(t, origin, nil)
}

func BenchmarkHop(b *testing.B) {
	trip := roundTripper(b, startKilobyte(b, "outbound"))
	trip()
	b.ReportAllocs()
	for b.Loop() {
		trip()
	}
}
