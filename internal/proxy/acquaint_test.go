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
// is served all the same.
func TestCallerAheadOfItsNews(t *testing.T) {
	origin := serveRaw(t, func(c *net.TCPConn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
		}
	})
	cfg, bind := inboundConfig(t, origin)
	h := startHop(t, cfg, nil)
	call := func(from netip.Addr) net.Conn {
		t.Helper()
		dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
		c, err := dialer.DialContext(t.Context(), "tcp", bind.String())
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
	young, stranger := workload("young", 9), mesh.IP(testNet, 10)
	c := call(young.IP)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(h.p.connections(mesh.Inbound)) == 0 {
		<-tick.C
	}
	<-tick.C // it is being served by now, and waits
	news := *cfg
	news.Workloads = append(slices.Clip(news.Workloads), young)
	if err := h.p.Apply(&news); err != nil {
		t.Fatal(err)
	}
	answered(c)
	answered(call(stranger))

	counted := func(source string) bool {
		var text strings.Builder
		if err := h.rec.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		return regexp.MustCompile(`(?m)^istio_requests_total\{.*source_workload="` + source + `",.* 1$`).MatchString(text.String())
	}
	deadline := time.Now().Add(patience)
	for !counted("young") || !counted("unknown") { // the answer may be there first
		if time.Now().After(deadline) {
			t.Fatalf("counted as the caller's: %t, as a stranger's: %t", counted("young"), counted("unknown"))
		}
		<-tick.C
	}
}
