package intercept

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// fakeMesh is a service with a port that has a name, and a pod of a headless one.
type fakeMesh struct{}

func (fakeMesh) Lookup(name string) (Records, bool) {
	web := []netip.Addr{netip.MustParseAddr("240.240.0.1"), netip.MustParseAddr("2001:2::1")}
	switch name {
	case "web.default.svc.cluster.local":
		return Records{Addresses: web}, true
	case "_http._tcp.web.default.svc.cluster.local":
		return Records{Services: []ServiceRecord{{Target: "web.default.svc.cluster.local", Port: 80, Addresses: web}}}, true
	case "db-0.db.default.svc.cluster.local":
		return Records{Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.5")}}, true
	case "_tcp.web.default.svc.cluster.local", "prod.svc.cluster.local":
		return Records{}, true
	}
	return Records{}, false
}

func (fakeMesh) ReverseLookup(addr netip.Addr) []string {
	switch addr.String() {
	case "240.240.0.1", "2001:2::1":
		return []string{"web.default.svc.cluster.local"}
	case "10.77.0.5":
		return []string{"db-0.db.default.svc.cluster.local", "db-0.db-peers.default.svc.cluster.local"}
	}
	return nil
}

func testZone() *zone {
	return newZone(&Config{
		Hostname: "web-0", IP4: netip.MustParseAddr("10.77.0.2"), IP6: netip.MustParseAddr("fd77::2"),
		Search: []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local"},
		MeshOnly: []netip.Prefix{
			netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/112"),
			netip.MustParsePrefix("240.240.0.0/16"), netip.MustParsePrefix("2001:2::/48"),
		},
	}, fakeMesh{})
}

// TestZone asks for what exists, for other types of it, for what does not exist,
// and for what is the host's.
func TestZone(t *testing.T) {
	z := testZone()
	const (
		host, nothing, none = "to the host", "NOERROR", "NXDOMAIN"
		web, webSRV         = "web.default.svc.cluster.local.", "_http._tcp.web.default.svc.cluster.local."
		webAll              = "NOERROR A 240.240.0.1 AAAA 2001:2::1"
		srvAll              = "NOERROR SRV 0 1 80 " + web + " with A 240.240.0.1 AAAA 2001:2::1"
	)
	for _, tc := range []struct{ question, want string }{
		{web + " A", "NOERROR A 240.240.0.1"},
		{web + " AAAA", "NOERROR AAAA 2001:2::1"},
		{web + " ANY", webAll},
		{web + " SRV", nothing},
		{web + " TXT", nothing},
		{web + " MX", nothing},
		{web + " HTTPS", nothing},
		{web + " SVCB", nothing},
		{web + " CNAME", nothing},
		{web + " NS", nothing},
		{web + " SOA", nothing},
		{web + " PTR", nothing},
		{webSRV + " SRV", srvAll},
		{strings.ToUpper(webSRV) + " SRV", srvAll},
		{"_http._tcp.web.default.svc. SRV", srvAll},
		{"_http._tcp.web.default. SRV", srvAll},
		{"_http._tcp.web. SRV", srvAll},
		{webSRV + " ANY", srvAll},
		{webSRV + " A", nothing},
		{webSRV + " HTTPS", nothing},
		{"_tcp." + web + " SRV", nothing}, // others end with it
		{"_http._udp." + web + " SRV", none},
		{"_https._tcp." + web + " SRV", none},
		{"_http._tcp.nobody.default.svc.cluster.local. SRV", none},
		{"_http._tcp.nobody. SRV", host},
		{"db-0.db.default.svc.cluster.local. A", "NOERROR A 10.77.0.5"},
		{"db-0.db.default.svc.cluster.local. AAAA", nothing},
		{"db-1.db.default.svc.cluster.local. A", none},
		{"nobody.default.svc.cluster.local. TXT", none},
		{"cluster.local. A", nothing},
		{"svc.cluster.local. NS", nothing},
		{"default.svc.cluster.local. SOA", nothing},
		{"prod.svc.cluster.local. A", nothing},
		{"prod. A", host}, // a namespace is no host
		{"local. NS", host},
		{"example.test. HTTPS", host},
		{". NS", host},
		{"localhost. MX", nothing},
		{"web-0. A", "NOERROR A 10.77.0.2"},
		{"web-0. HTTPS", nothing},

		{"1.0.240.240.in-addr.arpa. PTR", "NOERROR PTR " + web},
		{"1.0.240.240.in-addr.arpa. ANY", "NOERROR PTR " + web},
		{"1.0.240.240.in-addr.arpa. TXT", nothing},
		{"2.0.240.240.in-addr.arpa. PTR", none},
		{"0.240.240.in-addr.arpa. NS", nothing},
		{"240.240.in-addr.arpa. SOA", nothing},
		{"5.0.77.10.in-addr.arpa. PTR", "NOERROR PTR db-0.db.default.svc.cluster.local. PTR db-0.db-peers.default.svc.cluster.local."},
		{"6.0.77.10.in-addr.arpa. PTR", none},
		{"2.0.77.10.in-addr.arpa. PTR", "NOERROR PTR web-0."},
		{"2.0.78.10.in-addr.arpa. PTR", host},
		{"1.2.0.192.in-addr.arpa. A", host},
		{"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.1.0.0.2.ip6.arpa. PTR", "NOERROR PTR " + web},
		{"9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.1.0.0.2.ip6.arpa. PTR", none},
		{"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.7.d.f.ip6.arpa. PTR", "NOERROR PTR web-0."},
		{"3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.7.D.F.ip6.arpa. PTR", none},
		{"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.7.d.f.ip6.arpa. PTR", host},
		{"1.0.0.127.in-addr.arpa. PTR", "NOERROR PTR localhost."},
		{"2.0.111.127.in-addr.arpa. PTR", none}, // a mesh IP, which is the host's
		{"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa. PTR", "NOERROR PTR localhost."},
	} {
		name, typ, _ := strings.Cut(tc.question, " ")
		req := new(dns.Msg).SetQuestion(name, dns.StringToType[typ])
		if got := answerText(z.answer(req), name); got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.question, got, tc.want)
		}
	}
}

// answerText is the rcode and the records, in the order of their text; the random
// one is TestResolvers' matter.
func answerText(m *dns.Msg, name string) string {
	if m == nil {
		return "to the host"
	}
	text := func(rrs []dns.RR, owner string) (s []string) {
		for _, rr := range rrs {
			h := rr.Header()
			if owner != "" && h.Name != owner {
				s = append(s, "of "+h.Name)
			}
			s = append(s, dns.TypeToString[h.Rrtype]+" "+strings.TrimPrefix(rr.String(), h.String()))
		}
		return s
	}
	answer := text(m.Answer, name)
	if len(m.Answer) > 0 && m.Answer[0].Header().Rrtype != dns.TypePTR {
		slices.Sort(answer)
	}
	line := append([]string{dns.RcodeToString[m.Rcode]}, answer...)
	if len(m.Extra) > 0 {
		line = append(append(line, "with"), text(m.Extra, "")...)
	}
	return strings.Join(line, " ")
}

// TestZoneOtherQuestions: classes and versions that nobody speaks.
func TestZoneOtherQuestions(t *testing.T) {
	z := testZone()
	for _, tc := range []struct {
		name  string
		class uint16
		want  string
	}{
		{"web.default.svc.cluster.local.", dns.ClassCHAOS, "REFUSED"},
		{"web.default.svc.cluster.local.", dns.ClassANY, "REFUSED"},
		{"5.0.77.10.in-addr.arpa.", dns.ClassCHAOS, "REFUSED"},
		{"version.bind.", dns.ClassCHAOS, "to the host"},
	} {
		req := new(dns.Msg).SetQuestion(tc.name, dns.TypeTXT)
		req.Question[0].Qclass = tc.class
		if got := answerText(z.answer(req), tc.name); got != tc.want {
			t.Errorf("%s in class %d: %s, want %s", tc.name, tc.class, got, tc.want)
		}
	}
	req := new(dns.Msg).SetQuestion("web.default.svc.cluster.local.", dns.TypeA)
	req.SetEdns0(4096, false)
	req.IsEdns0().SetVersion(1)
	if m := z.answer(req); m.Rcode != dns.RcodeBadVers || len(m.Answer) != 0 {
		t.Errorf("version 1 of EDNS: %v", m)
	}
}

func TestReverseDomain(t *testing.T) {
	for prefix, want := range map[string]string{
		"10.77.0.0/16": "77.10.in-addr.arpa", "10.77.0.0/12": "10.in-addr.arpa", "127.0.0.0/8": "127.in-addr.arpa",
		"192.0.2.1/32": "1.2.0.192.in-addr.arpa", "2001:2::/48": "0.0.0.0.2.0.0.0.1.0.0.2.ip6.arpa",
		"fd00::/8": "d.f.ip6.arpa",
	} {
		if got := reverseDomain(netip.MustParsePrefix(prefix)); got != want {
			t.Errorf("%s: %s, want %s", prefix, got, want)
		}
	}
}

// FuzzParseReverse: what is read as an address has, written as a name, the name
// that was read.
func FuzzParseReverse(f *testing.F) {
	for _, seed := range []string{
		"1.0.240.240.in-addr.arpa", "01.0.240.240.in-addr.arpa", "256.0.0.1.in-addr.arpa", "0.240.240.in-addr.arpa", ".in-addr.arpa", "ip6.arpa",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.1.0.0.2.ip6.arpa",
		"a.b.%.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.1.0.0.2.ip6.arpa", // a zone
		"4.0.3.0.2.0.1.0.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa", // IPv4 in IPv6
		"..............................................................." + ".ip6.arpa",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		name = strings.ToLower(name)
		addr, ok := parseReverse(name)
		if !ok {
			return
		}
		if addr.Zone() != "" {
			t.Fatalf("%q is %v", name, addr)
		}
		bits := netip.PrefixFrom(addr, addr.BitLen())
		if got := reverseDomain(bits); got != name && !addr.Is4In6() {
			t.Errorf("%q is %v, whose name is %q", name, addr, got)
		}
	})
}
