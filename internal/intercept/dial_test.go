package intercept_test

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/intercept"
)

// ask dials into the case and returns what the program says.
func ask(tb testing.TB, c *intercept.Case, source string, port uint16) (string, error) {
	tb.Helper()
	var src netip.Addr
	if source != "" {
		src = netip.MustParseAddr(source)
	}
	conn, err := c.Dial(testContext(tb), clientOf(src), port)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	answer, err := readAll(conn)
	if err != nil {
		tb.Fatalf("read from port %d: %v", port, err)
	}
	// The port of the client is arbitrary.
	said := string(answer)
	return said[:strings.LastIndexByte(said, ':')], nil
}

// clientOf is a client with one address.
func clientOf(a netip.Addr) intercept.Client {
	if a.Is4() {
		return intercept.Client{IP4: a}
	}
	return intercept.Client{IP6: a}
}

// TestDialAt: what a program opens to others is found by both of the case's addresses,
// what it keeps to itself by none; the client has an address of either family, and
// the program's own end is what was called.
func TestDialAt(t *testing.T) {
	c := startCase(t, config(t))
	client := intercept.Client{IP4: netip.MustParseAddr("10.77.0.9"), IP6: netip.MustParseAddr("fd77::9")}
	for _, tt := range []struct{ network, listen, target, want string }{
		{"tcp", ":9000", "10.77.0.2:9000", "hello 10.77.0.9 at 10.77.0.2:9000"},
		{"tcp", ":9001", "[fd77::2]:9001", "hello fd77::9 at [fd77::2]:9001"},
		{"tcp4", "0.0.0.0:9002", "[fd77::2]:9002", "hello 10.77.0.9 at 10.77.0.2:9002"},
		{"tcp", "[fd77::2]:9003", "10.77.0.2:9003", "hello fd77::9 at [fd77::2]:9003"},
		{"tcp", "127.0.0.1:9004", "10.77.0.2:9004", ""},
		{"tcp", "[::1]:9005", "[fd77::2]:9005", ""},
		{"tcp", ":9006", "127.0.0.1:9006", ""},
		{"tcp", ":9007", "10.77.0.3:9007", ""},
	} {
		p := role(t, c, "ends", tt.network, tt.listen).ready(t)
		conn, err := c.DialAt(testContext(t), client, netip.MustParseAddrPort(tt.target))
		if (err == nil) != (tt.want != "") {
			t.Errorf("%s for a program on %s: %v", tt.target, tt.listen, err)
		}
		if err == nil {
			got, err := io.ReadAll(conn)
			conn.Close()
			if string(got) != tt.want || err != nil {
				t.Errorf("%s for a program on %s: %q, %v; want %q", tt.target, tt.listen, got, err, tt.want)
			}
		}
		p.stdin.Close()
	}
	// By Dial, too, a program that listens everywhere is called by its own address.
	role(t, c, "ends", "tcp", ":9100").ready(t)
	conn, err := c.Dial(testContext(t), client, 9100)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); string(got) != "hello 10.77.0.9 at 10.77.0.2:9100" || err != nil {
		t.Errorf("by Dial: %q, %v", got, err)
	}
}

func TestDialFindsTheProgram(t *testing.T) {
	c := startCase(t, config(t))
	for _, tc := range []struct {
		name, listen   string
		port           uint16
		source, answer string
	}{
		{"all addresses", ":8080", 8080, "10.77.0.9", "hello 10.77.0.9"},
		{"IPv4 wildcard", "0.0.0.0:8081", 8081, "198.51.100.7", "hello 198.51.100.7"},
		{"loopback only", "127.0.0.1:8082", 8082, "10.77.0.9", "hello 10.77.0.9"},
		{"case address only", "10.77.0.2:8083", 8083, "10.77.0.9", "hello 10.77.0.9"},
		{"IPv6 loopback only", "[::1]:8084", 8084, "fd77::9", "hello [fd77::9]"},
		{"IPv6 case address only", "[fd77::2]:8085", 8085, "fd77::9", "hello [fd77::9]"},
		{"source of the other family", "[::1]:8086", 8086, "10.77.0.9", "hello [::1]"},
		{"no source", ":8087", 8087, "", "hello 10.77.0.2"},
		{"no source, loopback only", "127.0.0.1:8088", 8088, "", "hello 127.0.0.1"},
		{"privileged port", ":80", 80, "10.77.0.9", "hello 10.77.0.9"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := role(t, c, "serve", "tcp", tc.listen).ready(t)
			for range 3 { // the second and third use what the first remembered
				got, err := ask(t, c, tc.source, tc.port)
				if err != nil || got != tc.answer {
					t.Errorf("got %q, %v, want %q", got, err, tc.answer)
				}
			}
			p.stdin.Close()
			if _, exit := p.result(t); exit != (intercept.Exit{}) {
				t.Errorf("server: %v", exit)
			}
		})
	}
}

func TestDialRefused(t *testing.T) {
	c := startCase(t, config(t))
	for _, port := range []uint16{1, 8080, 15001, 15053} {
		if got, err := ask(t, c, "10.77.0.9", port); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("port %d: %q, %v, want connection refused", port, got, err)
		}
	}
}

// TestNoRouteRefuses: the routes of a new case lead to it. A prefix route to its
// IPv6 address would refuse, for as long as the kernel has not made the address's
// own route, and connections of the first moment would fail.
func TestNoRouteRefuses(t *testing.T) {
	c := startCase(t, config(t))
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/ipv6_route", c.PID()))
	if err != nil {
		t.Fatal(err)
	}
	const reject, null = 0x200, "ffffffff" // RTF_REJECT; metric of the entry for "no route"
	for _, line := range lines(string(table)) {
		f := strings.Fields(line) // destination, length, source, length, gateway, metric, references, use, flags, device
		flags, err := strconv.ParseUint(f[8], 16, 32)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if f[5] != null && flags&reject != 0 {
			t.Errorf("a route refuses: %s", line)
		}
	}
}

// TestManyDials goes through the pool many times, with more at once than it holds.
func TestManyDials(t *testing.T) {
	c := startCase(t, config(t))
	role(t, c, "serve", "tcp", ":8080").ready(t)
	ctx := testContext(t)
	errs := make(chan error)
	const workers, each = 100, 20
	for range workers {
		go func() {
			var errAll error
			for range each {
				conn, err := c.Dial(ctx, clientOf(netip.MustParseAddr("10.77.0.9")), 8080)
				if err == nil {
					_, err = readAll(conn)
					conn.Close()
				}
				errAll = errors.Join(errAll, err)
			}
			errs <- errAll
		}()
	}
	for range workers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// TestBurstOfDials: nobody comes after the burst, so nobody else asks for the
// sockets that its last ones wait for.
func TestBurstOfDials(t *testing.T) {
	c := startCase(t, config(t))
	role(t, c, "serve", "tcp", ":8080").ready(t)
	ctx := testContext(t)
	const burst = 500
	begin := make(chan struct{})
	errs := make(chan error)
	for range burst {
		go func() {
			<-begin
			conn, err := c.Dial(ctx, clientOf(netip.MustParseAddr("10.77.0.9")), 8080)
			if err == nil {
				err = conn.Close()
			}
			errs <- err
		}()
	}
	close(begin)
	for range burst {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
