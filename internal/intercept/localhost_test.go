package intercept_test

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/intercept"
)

// TestLocalhostFollowsTheListener: a loopback port means the host's service
// exactly as long as nothing inside the case listens on it, on whichever of the two
// addresses that localhost has.
func TestLocalhostFollowsTheListener(t *testing.T) {
	c := startCase(t, config(t))
	serveOutbound(t, c)
	for _, tc := range []struct{ listen, connect, answer, fallThrough string }{
		{"127.0.0.1:6001", "127.0.0.1:6001", "127.0.0.1", "dst=127.0.0.1:6001 src=127.0.0.1 localhost=true"},
		{"0.0.0.0:6002", "127.0.0.1:6002", "127.0.0.1", "dst=127.0.0.1:6002 src=127.0.0.1 localhost=true"},
		{":6003", "127.0.0.1:6003", "127.0.0.1", "dst=127.0.0.1:6003 src=127.0.0.1 localhost=true"},
		{":6004", "[::1]:6004", "[::1]", "dst=[::1]:6004 src=::1 localhost=true"},
		{"[::1]:6005", "[::1]:6005", "[::1]", "dst=[::1]:6005 src=::1 localhost=true"},
		{"127.0.0.1:6006", "[::1]:6006", "127.0.0.1", "dst=[::1]:6006 src=::1 localhost=true"},
		{"[::1]:6007", "127.0.0.1:6007", "[::1]", "dst=127.0.0.1:6007 src=127.0.0.1 localhost=true"},
	} {
		t.Run(tc.listen+" "+tc.connect, func(t *testing.T) {
			for range 2 {
				if got := run(t, c, "get", "tcp", tc.connect); got != tc.fallThrough {
					t.Errorf("without listener: got %q, want %q", got, tc.fallThrough)
				}
				p := role(t, c, "serve", "tcp", tc.listen).ready(t)
				got := run(t, c, "get", "tcp", tc.connect)
				if want := "hello " + tc.answer; got[:strings.LastIndexByte(got, ':')] != want {
					t.Errorf("with listener: got %q, want %q", got, want)
				}
				p.stdin.Close()
				p.result(t)
			}
		})
	}
}

// TestOwnAddressIsDirect: calls to the case's own addresses never reach the proxy.
func TestOwnAddressIsDirect(t *testing.T) {
	c := startCase(t, config(t))
	serveOutbound(t, c)
	role(t, c, "serve", "tcp", ":8080").ready(t)
	for addr, want := range map[string]string{
		"10.77.0.2:8080":  "hello 10.77.0.2",
		"[fd77::2]:8080":  "hello [fd77::2]",
		"127.0.0.1:8080":  "hello 127.0.0.1",
		"127.0.0.99:8080": "hello 127.0.0.1",
		"web-0:8080":      "hello 10.77.0.2",
		"localhost:8080":  "hello 127.0.0.1",
	} {
		network := "tcp4"
		if addr[0] == '[' {
			network = "tcp6"
		}
		got := run(t, c, "get", network, addr)
		if got[:strings.LastIndexByte(got, ':')] != want {
			t.Errorf("%s: got %q, want %q", addr, got, want)
		}
	}
}

// TestOwnServiceAddress: a program that calls its own service by its virtual IP
// goes out to the proxy and comes in again, once.
func TestOwnServiceAddress(t *testing.T) {
	c := startCase(t, config(t))
	role(t, c, "serve", "tcp", ":8080").ready(t)
	var accepted int
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := c.Outbound().Accept()
			if err != nil {
				return
			}
			accepted++
			up, err := c.Dial(t.Context(), clientOf(conn.Source.Addr()), conn.OrigDst.Port())
			if err != nil {
				fmt.Fprint(conn, err)
			} else {
				_, _ = io.Copy(conn, up)
				up.Close()
			}
			conn.Close()
		}
	})
	got := run(t, c, "get", "tcp", "240.240.0.1:8080")
	_ = c.Close()
	wg.Wait()
	if want := "hello " + caseIP4.String(); got[:strings.LastIndexByte(got, ':')] != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if accepted != 1 {
		t.Errorf("the proxy accepted %d connections, want 1", accepted)
	}
}

// TestOwnPortsAreNotServed: the proxy's ports inside the case are no way around it.
func TestOwnPortsAreNotServed(t *testing.T) {
	c := startCase(t, config(t))
	serveOutbound(t, c)
	for _, addr := range []string{"127.0.0.1:15001", "[::1]:15001", "10.77.0.2:15001"} {
		p := role(t, c, "get", "tcp", addr)
		if out, exit := p.result(t); exit != (intercept.Exit{Code: 1}) || out != "" {
			t.Errorf("%s: %q, %v, want an error", addr, out, exit)
		}
	}
}

// TestIPv4OnlyCase: a case without IPv6 refuses it, and the rest works.
func TestIPv4OnlyCase(t *testing.T) {
	cfg := config(t)
	cfg.IP6 = netip.Addr{}
	c := startCase(t, cfg)
	serveOutbound(t, c)
	if got, want := run(t, c, "get", "tcp", "192.0.2.1:80"), "dst=192.0.2.1:80 src=10.77.0.2 localhost=false"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	p := role(t, c, "get", "tcp", "[2001:2::1]:80")
	if _, exit := p.result(t); exit != (intercept.Exit{Code: 1}) || !strings.Contains(p.stderr(), "unreachable") {
		t.Errorf("IPv6: %v, %q, want unreachable", exit, p.stderr())
	}
}
