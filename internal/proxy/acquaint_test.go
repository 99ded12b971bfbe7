package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// TestCallerAheadOfItsNews: a workload calls before the configuration names it.
// Its call waits for that and is counted as its own; one that nobody ever names
// is served all the same, after a while.
func TestCallerAheadOfItsNews(t *testing.T) {
	origin := serveRaw(t, func(c *net.TCPConn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
		}
	})
	call := func(from netip.Addr, at netip.AddrPort) net.Conn {
		t.Helper()
		dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
		c, err := dialer.DialContext(t.Context(), "tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
		return c
	}
	answered := func(c net.Conn) {
		t.Helper()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	counted := func(h *hop, source string) {
		t.Helper()
		want := regexp.MustCompile(`(?m)^istio_requests_total\{.*source_workload="` + source + `",.* 1$`)
		until(t, "the call is counted as that of "+source, func() bool { // the answer may be there first
			var text strings.Builder
			if err := h.rec.WriteText(&text); err != nil {
				t.Fatal(err)
			}
			return want.MatchString(text.String())
		})
	}

	cfg, bind := inboundConfig(t, origin)
	h := startHop(t, cfg, func(o *Options) { o.AcquaintTime = patience })
	young := workload("young", 9)
	c := call(young.IP, bind)
	until(t, "the call is there", func() bool { return len(h.p.connections(mesh.Inbound)) > 0 })
	pause(t.Context(), 20*time.Millisecond) // it is being served by now, and waits
	news := *cfg
	news.Workloads = append(slices.Clip(news.Workloads), young)
	if err := h.p.Apply(&news); err != nil {
		t.Fatal(err)
	}
	answered(c)
	counted(h, "young")

	cfg, bind = inboundConfig(t, origin)
	h = startHop(t, cfg, func(o *Options) { o.AcquaintTime = 20 * time.Millisecond })
	answered(call(mesh.IP(testNet, 10), bind))
	counted(h, "unknown")
}
