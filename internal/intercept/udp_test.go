package intercept_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/intercept"
)

// echoUDP is a UDP server on the host that answers "echo DATA".
func echoUDP(t *testing.T, network, addr string) *net.UDPConn {
	t.Helper()
	pc, err := new(net.ListenConfig).ListenPacket(t.Context(), network, addr)
	if err != nil {
		t.Fatal(err)
	}
	conn, _ := pc.(*net.UDPConn)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFromUDP(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDP(append([]byte("echo "), buf[:n]...), from)
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return conn
}

// TestUDPRoundTrip: datagrams to the host pass, in both families and more than
// one in a flow; the answer comes from the address that was asked.
func TestUDPRoundTrip(t *testing.T) {
	c := startCase(t, config(t))
	for _, tc := range []struct{ network, addr string }{
		{"udp4", "127.0.0.1:0"}, {"udp6", "[::1]:0"}, {"udp4", hostAddress(t) + ":0"},
	} {
		t.Run(tc.addr, func(t *testing.T) {
			server := echoUDP(t, tc.network, tc.addr)
			to := server.LocalAddr().String()
			for range 2 {
				// Connected sockets drop answers from other addresses.
				if got := run(t, c, "get", tc.network, to, "hello"); got != "echo hello" {
					t.Errorf("got %q", got)
				}
			}
			big := strings.Repeat("x", 1800)
			if got := run(t, c, "get", tc.network, to, big); got != "echo "+big {
				t.Errorf("got %d bytes", len(got))
			}
			if got, want := run(t, c, "pingpong", tc.network, to), "echo 0,echo 1,echo 2,echo 3,echo 4\n"; got != want {
				t.Errorf("several in one flow: %q, want %q", got, want)
			}
		})
	}
}

// hostAddress is an address of this host that is not loopback.
func hostAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	return "127.0.0.5"
}

// TestUDPInsideStaysInside: programs of a case reach each other directly.
func TestUDPInsideStaysInside(t *testing.T) {
	c := startCase(t, config(t))
	for _, addr := range []string{"127.0.0.1:7001", "10.77.0.2:7002", "[::1]:7003", "[fd77::2]:7004"} {
		p := role(t, c, "udpecho", addr).ready(t)
		if got := run(t, c, "get", "udp", addr, "hello"); got != "inside hello" {
			t.Errorf("%s: got %q", addr, got)
		}
		p.stdin.Close()
		p.result(t)
	}
}

// TestUDPIsRefused: what is only inside cases is refused at once, and never asked
// for on the host; the case's own address, though in the range, is served.
func TestUDPIsRefused(t *testing.T) {
	cfg := config(t)
	cfg.MeshOnly = []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/112"), netip.MustParsePrefix("240.240.0.0/16")}
	c := startCase(t, cfg)
	for _, addr := range []string{"10.77.0.9:7", "240.240.0.1:7", "[fd77::9]:7"} {
		if got, want := run(t, c, "refused", "udp", addr), "connection refused\n"; got != want {
			t.Errorf("%s: got %q, want %q", addr, got, want)
		}
	}
	for _, addr := range []string{"10.77.0.2:7002", "[fd77::2]:7004"} {
		p := role(t, c, "udpecho", addr).ready(t)
		if got := run(t, c, "get", "udp", addr, "hello"); got != "inside hello" {
			t.Errorf("%s: got %q", addr, got)
		}
		p.stdin.Close()
		p.result(t)
	}
	if got, want := run(t, c, "get", "udp", echoUDP(t, "udp4", "127.0.0.1:0").LocalAddr().String(), "hello"), "echo hello"; got != want {
		t.Errorf("to the host: got %q, want %q", got, want)
	}
}

// TestUDPThatTheHostRefuses: a program that sends to a port of the host where
// nobody listens is told at once, as without a mesh, with every datagram that is
// refused; when somebody listens there later, the same socket reaches him.
func TestUDPThatTheHostRefuses(t *testing.T) {
	before := len(ownSockets(t))
	t.Cleanup(func() { // after the case's own
		waitFor(t, "the case's sockets to be closed", func() bool { return len(ownSockets(t)) <= before })
	})
	c := startCase(t, config(t))
	for _, tc := range []struct{ network, addr string }{
		{"udp4", "127.0.0.1:0"}, {"udp6", "[::1]:0"}, {"udp4", hostAddress(t) + ":0"},
	} {
		t.Run(tc.addr, func(t *testing.T) {
			// A socket that is connected elsewhere takes nothing, and keeps the port.
			local, err := net.ResolveUDPAddr(tc.network, tc.addr)
			if err != nil {
				t.Fatal(err)
			}
			holder, err := net.DialUDP(tc.network, local, &net.UDPAddr{IP: local.IP, Port: 9})
			if err != nil {
				t.Fatal(err)
			}
			defer holder.Close()
			to := holder.LocalAddr().String()
			p := role(t, c, "tries", tc.network, to)
			for range 3 {
				if got, want := p.ask(t, "hello"), "connection refused"; got != want {
					t.Errorf("nobody listens: %q, want %q", got, want)
				}
			}
			holder.Close()
			echoUDP(t, tc.network, to)
			if got, want := p.ask(t, "hello"), "echo hello"; got != want {
				t.Errorf("somebody listens: %q, want %q", got, want)
			}
		})
	}
}

// TestUDPWithoutARoute: what the host cannot send fails at once in the case, too.
// The host is a network namespace with nothing in it.
func TestUDPWithoutARoute(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(testContext(t), exe, "role", "offline", "192.0.2.1:9", "[2001:db8::1]:9")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if id := os.Geteuid(); id != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: id, HostID: id, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	// ICMPv6 has no word for it that reaches a socket.
	if got, want := string(out), "network is unreachable\nconnection refused\n"; got != want {
		t.Errorf("got %q, want %q; stderr %s", got, want, stderr.String())
	}
}

// playOffline is a P0 in whose case programs send to addrs.
func playOffline(ctx context.Context, addrs []string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := intercept.Start(ctx, intercept.Config{IP4: caseIP4, IP6: caseIP6})
	if err != nil {
		return err
	}
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	for _, addr := range addrs {
		exit, out, err := c.Exec(ctx, []string{"/proc/self/exe", "role", "refused", "udp", addr}, nil, "")
		if err != nil || exit != (intercept.Exit{}) {
			return fmt.Errorf("%v %w: %s", exit, err, out)
		}
		fmt.Fprintf(os.Stdout, "%s", out)
	}
	cancel()
	return <-ran
}

// TestUDPProgramThatIsGone: when the socket of a program is closed, whoever still
// sends to it is told, and the flow ends long before it is idle.
func TestUDPProgramThatIsGone(t *testing.T) {
	cfg := config(t)
	cfg.UDPIdle = time.Hour
	c := startCase(t, cfg)
	pc, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	p := role(t, c, "say", "udp4", pc.LocalAddr().String(), "hello")
	_ = pc.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 100)
	_, from, err := pc.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	if _, exit := p.result(t); exit != (intercept.Exit{}) {
		t.Fatalf("%v: %s", exit, p.stderr())
	}
	if _, err := pc.WriteTo([]byte("late"), from); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the flow of the program to end", func() bool { return udpSockets(t) <= 1 })
}

// TestUDPFlowsAreBounded: more flows than allowed work one after the other; the
// descriptors of this process tell.
func TestUDPFlowsAreBounded(t *testing.T) {
	cfg := config(t)
	cfg.MaxUDPFlows, cfg.UDPIdle = 4, time.Hour
	c := startCase(t, cfg)
	to := echoUDP(t, "udp4", "127.0.0.1:0").LocalAddr().String()
	if got, want := run(t, c, "manyflows", to, "40"), "40\n"; got != want {
		t.Errorf("%s of 40 flows were answered", got)
	}
	// A flow that had to go closes its sockets when whoever reads from them wakes.
	waitFor(t, "no sockets to the host but the server's and 4", func() bool { return udpSockets(t) <= 1+4 })
}

// TestSilentUDPFlowsEnd: a flow that was idle for long enough is closed.
func TestSilentUDPFlowsEnd(t *testing.T) {
	cfg := config(t)
	cfg.UDPIdle = 100 * time.Millisecond
	c := startCase(t, cfg)
	to := echoUDP(t, "udp4", "127.0.0.1:0").LocalAddr().String()
	if got, want := run(t, c, "manyflows", to, "10"), "10\n"; got != want {
		t.Errorf("%s of 10 flows were answered", got)
	}
	waitFor(t, "silent flows to end", func() bool { return udpSockets(t) <= 1 })
}

// udpSockets counts the UDP sockets of this network namespace.
func udpSockets(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/net/udp")
	if err != nil {
		t.Fatal(err)
	}
	inodes := ownSockets(t)
	n := 0
	for _, line := range lines(string(data))[1:] {
		if f := strings.Fields(line); inodes[f[9]] {
			n++
		}
	}
	return n
}

// ownSockets are the inodes of this process's sockets.
func ownSockets(t *testing.T) map[string]bool {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, e := range entries {
		link, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil {
			continue
		}
		if inode, ok := strings.CutPrefix(link, "socket:["); ok {
			found[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return found
}

// waitFor polls until ok or the end of patience.
func waitFor(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			tb.Fatalf("waited too long for %s", what)
		}
	}
}
