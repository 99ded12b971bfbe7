package intercept_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/vitrine-mesh/vitrine/internal/intercept"
)

// names is a Resolver for tests.
type names map[string]intercept.Records

func (n names) Lookup(name string) (records intercept.Records, known bool) {
	records, known = n[name]
	return records, known
}

func (n names) ReverseLookup(addr netip.Addr) (found []string) {
	for name, r := range n {
		if slices.Contains(r.Addresses, addr) {
			found = append(found, name)
		}
	}
	return found
}

func addresses(list ...string) (r intercept.Records) {
	for _, a := range list {
		r.Addresses = append(r.Addresses, netip.MustParseAddr(a))
	}
	return r
}

// meshNames are some of the mesh. "many" has a service record for each of 40 pods:
// too much for 512 bytes with their addresses, and without them.
func meshNames() names {
	n := names{
		"web-app.default.svc.cluster.local": addresses("240.240.0.1", "2001:2::1"),
		"v4only.default.svc.cluster.local":  addresses("240.240.0.2"),
		"db.prod.svc.cluster.local":         addresses("240.240.0.3"),
		"prod.svc.cluster.local":            {},
	}
	n["_http._tcp.web-app.default.svc.cluster.local"] = intercept.Records{Services: []intercept.ServiceRecord{
		{Target: "web-app.default.svc.cluster.local", Port: 80, Addresses: n["web-app.default.svc.cluster.local"].Addresses},
	}}
	var many intercept.Records
	for i := range 40 {
		many.Services = append(many.Services, intercept.ServiceRecord{
			Target: fmt.Sprintf("many-%d.many.default.svc.cluster.local", i), Port: uint16(9000 + i),
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 77, 1, byte(i)})},
		})
	}
	n["_x._tcp.many.default.svc.cluster.local"] = many
	few := many
	few.Services = many.Services[:7]
	n["_x._tcp.few.default.svc.cluster.local"] = few
	return n
}

// hostDNS is a DNS server on the host's loopback that answers host names of
// example.test: "long" with more than fits a datagram, everything else with
// 192.0.2.77.
func hostDNS(t *testing.T) netip.AddrPort {
	t.Helper()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(req)
		q := req.Question[0]
		n := 1
		if strings.HasPrefix(q.Name, "long.") {
			n = 100
		}
		switch {
		case !strings.HasSuffix(q.Name, "example.test."):
			m.Rcode = dns.RcodeNameError
		case q.Qtype == dns.TypeA:
			for i := range n {
				m.Answer = append(m.Answer, &dns.A{
					Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60},
					A:   []byte{192, 0, 2, byte(77 + i)},
				})
			}
		}
		if w.LocalAddr().Network() == "udp" {
			m.Truncate(dns.MinMsgSize)
		}
		_ = w.WriteMsg(m)
	})
	l, pc := samePort(t)
	done := make(chan error, 2)
	var servers []*dns.Server
	for _, s := range []*dns.Server{{Listener: l, Handler: handler}, {PacketConn: pc, Handler: handler}} {
		s.ReadTimeout = patience // of TCP: 2 s otherwise
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() { done <- s.ActivateAndServe() }()
		<-up
		servers = append(servers, s)
	}
	t.Cleanup(func() {
		for _, s := range servers {
			_ = s.Shutdown()
		}
		<-done
		<-done
	})
	return netip.MustParseAddrPort(l.Addr().String())
}

// samePort listens on a loopback port that is free for TCP and for UDP.
func samePort(t *testing.T) (net.Listener, net.PacketConn) {
	t.Helper()
	var lc net.ListenConfig
	for range 100 {
		l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := lc.ListenPacket(t.Context(), "udp4", l.Addr().String())
		if err == nil {
			return l, pc
		}
		l.Close()
	}
	t.Fatal("no port is free for both TCP and UDP")
	return nil, nil
}

// startDNS is a case with a running DNS.
func startDNS(t *testing.T, answered func(string)) *intercept.Case {
	t.Helper()
	cfg := config(t)
	cfg.DNSAnswered = answered
	cfg.MeshOnly = []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/112")}
	cfg.Resolvers = []netip.AddrPort{hostDNS(t)}
	c := startCase(t, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- c.ServeDNS(ctx, meshNames()) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("ServeDNS: %v", err)
		}
	})
	return c
}

// TestResolvers asks the ways that real programs ask.
func TestResolvers(t *testing.T) {
	c := startDNS(t, nil)
	const py = `import socket,sys
for n in sys.argv[1:]: print(n, *sorted({i[4][0] for i in socket.getaddrinfo(n, 80)}))`
	const js = `const dns=require('dns').promises;(async()=>{for(const n of process.argv.slice(1))
console.log(n,...(await dns.lookup(n,{all:true})).map(a=>a.address).sort())})()`
	queries := []string{
		"web-app", "web-app.default", "web-app.default.svc", "web-app.default.svc.cluster.local", "WEB-app.",
		"v4only", "db.prod", "db.prod.svc.cluster.local", "www.example.test", "long.example.test", "web-0",
	}
	answer := []string{"long.example.test"}
	for i := range 100 {
		answer = append(answer, netip.AddrFrom4([4]byte{192, 0, 2, byte(77 + i)}).String())
	}
	long := strings.Join(answer, " ")
	want := []string{
		"web-app 2001:2::1 240.240.0.1", "web-app.default 2001:2::1 240.240.0.1",
		"web-app.default.svc 2001:2::1 240.240.0.1", "web-app.default.svc.cluster.local 2001:2::1 240.240.0.1",
		"WEB-app. 2001:2::1 240.240.0.1", "v4only 240.240.0.2", "db.prod 240.240.0.3",
		"db.prod.svc.cluster.local 240.240.0.3", "www.example.test 192.0.2.77", long, "web-0 10.77.0.2 fd77::2",
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		args []string
		env  []string
	}{
		{"Go", []string{exe, "role", "lookup"}, []string{"GODEBUG=netdns=go"}},
		{"libc", []string{exe, "role", "lookup"}, []string{"GODEBUG=netdns=cgo"}},
		{"Python", []string{"python3", "-c", py}, nil},
		{"Node", []string{"node", "-e", js}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path, err := exec.LookPath(tc.args[0])
			if err != nil {
				t.Fatalf("this test needs %s", tc.args[0])
			}
			p := start(t, c, intercept.Program{
				Args: append(append([]string{path}, tc.args[1:]...), queries...),
				Env:  append(os.Environ(), tc.env...), NewSession: true,
			})
			out, exit := p.result(t)
			if exit != (intercept.Exit{}) {
				t.Fatalf("%v: %s", exit, p.stderr())
			}
			got := lines(out)
			for i := range got {
				got[i] = sortedAnswer(got[i])
			}
			for i := range want {
				want[i] = sortedAnswer(want[i])
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// sortedAnswer sorts the addresses behind a name.
func sortedAnswer(line string) string {
	f := strings.Fields(line)
	for i := 1; i < len(f); i++ {
		for j := i; j > 1 && f[j] < f[j-1]; j-- {
			f[j], f[j-1] = f[j-1], f[j]
		}
	}
	return strings.Join(f, " ")
}

// TestDNSMessages asks what programs seldom ask, on every way in.
func TestDNSMessages(t *testing.T) {
	var mu sync.Mutex
	results := map[string]int{}
	c := startDNS(t, func(result string) {
		mu.Lock()
		defer mu.Unlock()
		results[result]++
	})
	queries := []string{
		"web-app.default.svc.cluster.local. A", "web-app.default.svc.cluster.local. AAAA", "web-app. A",
		"v4only.default.svc.cluster.local. AAAA", "prod.svc.cluster.local. A",
		"web-app.default.svc.cluster.local. MX", "nobody.default.svc.cluster.local. A",
		"www.example.test.default.svc.cluster.local. A", "1.0.240.240.in-addr.arpa. PTR",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.1.0.0.2.ip6.arpa. PTR",
		"2.0.77.10.in-addr.arpa. PTR", "unknown.invalid. A", "localhost. A",
		"_http._tcp.web-app.default.svc.cluster.local. SRV", "_http._tcp.web-app. SRV", "_none._tcp.web-app.default.svc.cluster.local. SRV",
		"web-app.default.svc.cluster.local. HTTPS", "9.0.77.10.in-addr.arpa. PTR",
	}
	want := []string{
		"NOERROR A 240.240.0.1", "NOERROR AAAA 2001:2::1", "NOERROR A 240.240.0.1",
		"NOERROR", "NOERROR", "NOERROR", "NXDOMAIN", "NXDOMAIN",
		"NOERROR PTR web-app.default.svc.cluster.local.", "NOERROR PTR web-app.default.svc.cluster.local.",
		"NOERROR PTR web-0.", "NXDOMAIN", "NOERROR A 127.0.0.1",
		"NOERROR SRV 0 1 80 web-app.default.svc.cluster.local. with A 240.240.0.1 AAAA 2001:2::1",
		"NOERROR SRV 0 1 80 web-app.default.svc.cluster.local. with A 240.240.0.1 AAAA 2001:2::1", "NXDOMAIN",
		"NOERROR", "NXDOMAIN",
	}
	for _, server := range []string{"udp 127.0.0.53:53", "tcp 127.0.0.53:53", "udp 192.0.2.1:53", "tcp 192.0.2.1:53", "udp [2001:db8::1]:53", "tcp [2001:db8::1]:53", "udp [::1]:53"} {
		network, addr, _ := strings.Cut(server, " ")
		got := lines(run(t, c, append([]string{"dig", network, addr}, queries...)...))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", server, diff)
		}
	}
	// By seven ways: 13 names of the mesh, four that it alone could know, and one
	// for the host.
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff(map[string]int{"noerror": 91, "nxdomain": 28, "forwarded": 7}, results); diff != "" {
		t.Errorf("answers counted: (-want +got)\n%s", diff)
	}
}

// TestLongDNSAnswers: an answer by UDP is as long as the question allows. Addresses
// that nobody asked for go first and without a word; what was asked for is
// complete, or says that it is not, and is complete by TCP.
func TestLongDNSAnswers(t *testing.T) {
	c := startDNS(t, nil)
	const few, many = "_x._tcp.few.default.svc.cluster.local. SRV", "_x._tcp.many.default.svc.cluster.local. SRV"
	for _, tc := range []struct{ network, query, want string }{
		{"udp", few, "NOERROR 7 and 0"},
		{"udp", few + "/1232", "NOERROR 7 and 7 EDNS 1232"},
		{"udp", many, "NOERROR TC"},
		{"udp", many + "/1232", "NOERROR TC EDNS 1232"},
		{"udp", many + "/4096", "NOERROR 40 and 40 EDNS 1232"},
		{"tcp", many, "NOERROR 40 and 40"},
		{"udp", "long.example.test. A", "NOERROR TC"},
		{"tcp", "long.example.test. A", "NOERROR 100 and 0"},
	} {
		if got := run(t, c, "digsize", tc.network, "192.0.2.1:53", tc.query); got != tc.want+"\n" {
			t.Errorf("%s %s: %q, want %q", tc.network, tc.query, got, tc.want)
		}
	}
}

// TestServiceLookup: Go's resolver finds service records by the full name and by
// those that the search list completes, also those that do not fit a datagram.
func TestServiceLookup(t *testing.T) {
	c := startDNS(t, nil)
	for _, name := range []string{"web-app.default.svc.cluster.local", "web-app.default", "web-app"} {
		if got, want := run(t, c, "srv", "http", "tcp", name), "web-app.default.svc.cluster.local.:80\n"; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	got := lines(run(t, c, "srv", "x", "tcp", "many.default.svc.cluster.local"))
	slices.Sort(got)
	var want []string
	for i := range 40 {
		want = append(want, fmt.Sprintf("many-%d.many.default.svc.cluster.local.:%d", i, 9000+i))
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
