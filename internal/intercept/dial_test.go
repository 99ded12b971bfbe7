package intercept_test

import (
	"errors"
	"fmt"
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
	conn, err := c.Dial(testContext(tb), src, port)
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
		{"no source", ":8087", 8087, "", "hello 127.0.0.1"},
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
				conn, err := c.Dial(ctx, netip.MustParseAddr("10.77.0.9"), 8080)
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
			conn, err := c.Dial(ctx, netip.MustParseAddr("10.77.0.9"), 8080)
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
