package proxy

import (
	"bufio"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// TestHalfClose: a client that ends its sending side, but not its connection, gets
// its responses, whenever it does so.
func TestHalfClose(t *testing.T) {
	later := func(c *net.TCPConn) {
		pause(t.Context(), 3*reapTick)
		c.CloseWrite()
	}
	for _, tc := range []struct {
		name     string
		requests int
		end      func(*net.TCPConn)
		inbound  bool
	}{
		{"with the request", 1, func(c *net.TCPConn) { c.CloseWrite() }, false},
		{"while it waits", 1, later, false},
		{"another proxy, while it waits", 1, later, true},
		{"with a second request behind", 2, later, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := newHeld()
			var h *hop
			if tc.inbound {
				h = startInbound(t, serveRaw(t, o.serve), nil)
			} else {
				h = startHop(t, webConfig(mesh.ProtocolHTTP, 0, serveRaw(t, o.serve)), nil)
			}
			c := h.dial(t)
			io.WriteString(c, strings.Repeat(plainRequest, tc.requests))
			await(t, o.asked)
			tc.end(c)
			pause(t.Context(), (absences+3)*reapTick) // it has been looked at
			r := bufio.NewReader(c)
			for n := range tc.requests {
				if n > 0 {
					await(t, o.asked)
				}
				o.answer <- "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatalf("response %d: %v", n+1, err)
				}
				if body, err := io.ReadAll(res.Body); err != nil || string(body) != "ok" {
					t.Errorf("response %d is %q, %v", n+1, body, err)
				}
			}
			if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("the connection ended with %v, want EOF", err)
			}
			for n := range tc.requests {
				if e := h.lastEntry(t, n+1); e.Code != http.StatusOK || e.Flags != 0 {
					t.Errorf("recorded as %d %s, want 200", e.Code, e.Flags)
				}
			}
		})
	}
}

// TestReadHalfOpen: of a page of a little-endian machine only what is half closed
// and owned counts.
func TestReadHalfOpen(t *testing.T) {
	const page = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 17 1 0 100 0 0 10 0
   1: 0100007F:0050 0100007F:1F90 05 00000000:00000000 00:00000000 00000000     0        0 18 1 0 20 4 30 10 -1
   2: 0100007F:0051 0100007F:1F90 05 00000000:00000000 00:00000000 00000000     0        0 0 1 0 20 4 30 10 -1
   3: 0000000000000000FFFF0000024D4D0A:0052 0000000000000000FFFF00000100007F:1F90 04 00000000:00000000 00:00000000 00000000     0        0 19 1 0 20 4 30 10 -1
`
	path := filepath.Join(t.TempDir(), "tcp")
	if err := os.WriteFile(path, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	got := halfOpen{}
	if err := got.read(path); err != nil {
		t.Fatal(err)
	}
	want := halfOpen{netip.MustParseAddrPort("127.0.0.1:80"): {}, netip.MustParseAddrPort("10.77.77.2:82"): {}}
	if !maps.Equal(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
}
