package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

// TestOriginThatCloses: a program that closes after each response, and does not say
// so, gets every request on a connection that is open, also one that must not be sent
// twice.
func TestOriginThatCloses(t *testing.T) {
	closed := make(chan error, 1)
	at := origin(t, func(c *net.TCPConn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return // the proxy's last connection, unused
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		closed <- closeHeard(t.Context(), c)
	})
	for name, request := range map[string]string{
		"body":            "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1\r\n\r\nx",
		"no body":         "DELETE / HTTP/1.1\r\nHost: web\r\n\r\n",
		"repeatable":      "GET / HTTP/1.1\r\nHost: web\r\n\r\n",
		"body on its way": "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n|0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := newRig(t, mesh.ProtocolHTTP, at).dial(t)
			r := bufio.NewReader(c)
			for i := range 20 {
				for part := range strings.SplitSeq(request, "|") {
					if _, err := io.WriteString(c, part); err != nil {
						t.Fatal(err)
					}
				}
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				if body, err := io.ReadAll(res.Body); res.StatusCode != http.StatusOK || string(body) != "ok" || err != nil {
					t.Fatalf("response %d is %d %q, %v", i, res.StatusCode, body, err)
				}
				if err := <-closed; err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// closeHeard ends what c sends, and returns when its peer's kernel has that: a FIN is
// acknowledged later.
func closeHeard(ctx context.Context, c *net.TCPConn) error {
	peer := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	ip := peer.Addr().Unmap().As4()
	entry := fmt.Sprintf(": %02X%02X%02X%02X:%04X ", ip[3], ip[2], ip[1], ip[0], peer.Port())
	if err := c.CloseWrite(); err != nil {
		return err
	}
	for ctx.Err() == nil {
		table, err := os.ReadFile("/proc/self/net/tcp") // proc_net(5): local address, remote address, state
		if err != nil {
			return err
		}
		const closeWait = "08"
		if _, rest, _ := strings.Cut(string(table), entry); len(strings.Fields(rest)) < 2 || strings.Fields(rest)[1] == closeWait {
			return nil
		}
	}
	return fmt.Errorf("the end of %s is not heard", c.RemoteAddr())
}

// TestReusedAfterInterim: the idle time of a connection to a server begins with the end
// of the response, however long before that an interim one came.
func TestReusedAfterInterim(t *testing.T) {
	hinted, begun := make(chan struct{}), make(chan int64, 1)
	h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, serveRaw(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\n")
		select {
		case <-hinted:
		case <-t.Context().Done():
			return
		}
		begun <- telemetry.Now()
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		r.ReadByte()
	})), nil)
	c := h.dial(t)
	in := bufio.NewReader(c)
	io.WriteString(c, plainRequest)
	for _, want := range []string{"HTTP/1.1 103 Early Hints\r\n", "\r\n", "HTTP/1.1 200 OK\r\n"} {
		if got, err := in.ReadString('\n'); got != want {
			t.Fatalf("read %q, %v; want %q", got, err, want)
		}
		if want == "\r\n" {
			close(hinted)
		}
	}
	e := h.p.snap.Load().clusters["outbound|80||web.default.svc.cluster.local"].Members[0].Endpoint
	until(t, "the connection is kept", func() bool { return e.Counts().IdleConnections == 1 })
	// The last moment at which it is not idle for too long if it is since the response.
	if kept := e.Reap(await(t, begun) + int64(h.p.o.PeerIdleTimeout) - 1); kept != 1 {
		t.Error("the connection was closed as idle before its time")
	}
}
