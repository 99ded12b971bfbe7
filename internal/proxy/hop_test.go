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
func roundTripper(tb testing.TB, h *hop) func() {
	tb.Helper()
	c := h.dial(tb)
	request := []byte(plainRequest)
	response := make([]byte, 8192)
	size := 0
	return func() {
		if _, err := c.Write(request); err != nil {
			tb.Fatal(err)
		}
		if size == 0 {
			n, err := c.Read(response)
			if err != nil {
				tb.Fatal(err)
			}
			size = n
			return
		}
		if _, err := io.ReadFull(c, response[:size]); err != nil {
			tb.Fatal(err)
		}
	}
}

func startKilobyte(tb testing.TB, dir string) *hop {
	tb.Helper()
	origin := serveRaw(tb, kilobyte)
	if dir == "outbound" {
		return startHop(tb, webConfig(mesh.ProtocolHTTP, 0, origin), nil)
	}
	return startInbound(tb, origin, nil)
}

func BenchmarkHop(b *testing.B) {
	trip := roundTripper(b, startKilobyte(b, "outbound"))
	trip()
	b.ReportAllocs()
	for b.Loop() {
		trip()
	}
}
