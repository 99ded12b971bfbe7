package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

// TestClientThatReadsLate asks one request after the other and reads nothing until the
// proxy cannot write any more: the last of a response, which is written together with
// the next read, has then to be written in parts.
func TestClientThatReadsLate(t *testing.T) {
	const most, size = 40000, 2 << 10
	asked := make(chan struct{}, most)
	origin := serveRaw(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			asked <- struct{}{}
			if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size)); err != nil {
				return
			}
		}
	})
	h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, origin), nil)
	c := h.dial(t)
	requests, full := 0, false
	for ; requests < most && !full; requests++ {
		if _, err := io.WriteString(c, plainRequest); err != nil {
			t.Fatal(err)
		}
		select {
		case <-asked:
		case <-time.NewTimer(500 * time.Millisecond).C: // on a slow machine it is pipelining from here on
			full = true
		}
	}
	if !full {
		t.Fatalf("the proxy took %d requests, and all its responses found room", most)
	}
	r := bufio.NewReader(c)
	for i := range requests {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("response %d of %d: %v", i+1, requests, err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK || len(body) != size {
			t.Fatalf("response %d of %d: %d, %d bytes, %v", i+1, requests, res.StatusCode, len(body), err)
		}
	}
	last := h.lastEntry(t, min(requests, 64))
	if last.Code != http.StatusOK || last.Flags != 0 || last.BytesSent < size || last.BytesSent > size+200 {
		t.Errorf("the last record is %+v", last)
	}
}

// TestClientLeavesAtTheLast: what the reaper finds when the response is there already
// does not change the record: a client that was gone before got nothing.
func TestClientLeavesAtTheLast(t *testing.T) {
	o := newHeld()
	h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, serveRaw(t, o.serve)), nil)
	c := h.dial(t)
	io.WriteString(c, plainRequest)
	await(t, o.asked)
	served := h.p.connections(mesh.Outbound)[0]
	c.Close()
	// The reaper after its first step: it has not told who waits for the response. If the
	// real one overtakes the response, that is the end of the request, and the record the same.
	served.watch.verdict.Store(uint32(verdictGone))
	served.down.Interrupt()
	select {
	case o.answer <- "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok":
	case <-o.ended:
	case <-time.NewTimer(patience).C:
		t.Fatal("the request neither got its response nor was given up")
	}
	if e := h.lastEntry(t, 1); e.Code != 0 || e.Flags != telemetry.FlagDC {
		t.Errorf("recorded as %d %s, want 0 DC", e.Code, e.Flags)
	}
}
