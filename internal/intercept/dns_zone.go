package intercept

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// zone is what a case's DNS answers by itself: the names of the mesh and of this
// machine, and that there are no others in the domains that only the mesh knows.
type zone struct {
	resolver Resolver
	cfg      *Config
	reverse  []string // domains of the addresses that nobody outside can name
}

func newZone(cfg *Config, r Resolver) *zone {
	z := &zone{resolver: r, cfg: cfg}
	// Loopback: RFC 6303, 4.2 and 4.3.
	for _, p := range append([]netip.Prefix{ipv4().loopPrefix, ipv6().loopPrefix}, cfg.MeshOnly...) {
		z.reverse = append(z.reverse, reverseDomain(p))
	}
	return z
}

// answer is the answer to a question about the mesh; nil if it is for the host.
func (z *zone) answer(req *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(req)
	m.Authoritative, m.RecursionAvailable = true, true
	if len(req.Question) != 1 || req.Opcode != dns.OpcodeQuery {
		m.Rcode = dns.RcodeFormatError
		return m
	}
	if opt := req.IsEdns0(); opt != nil && opt.Version() != 0 {
		m.Rcode = dns.RcodeBadVers
		return m
	}
	q := req.Question[0]
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	if q.Qclass != dns.ClassINET {
		if !z.isOurs(name) {
			return nil
		}
		m.Rcode = dns.RcodeRefused
		return m
	}
	if addr, ok := parseReverse(name); ok {
		switch names := z.namesOf(addr); {
		case len(names) > 0:
			m.Answer = pointers(q, names)
		case z.isOurs(name):
			m.Rcode = dns.RcodeNameError
		default:
			return nil
		}
		return m
	}
	records, known := z.lookup(name)
	switch {
	case known:
		m.Answer, m.Extra = answers(q, &records)
	case !z.isOurs(name):
		return nil
	case !slices.Contains(z.cfg.Search, name) && !strings.HasSuffix(name, ".arpa"):
		m.Rcode = dns.RcodeNameError
	} // The domains themselves exist (RFC 8020), and have no records.
	return m
}

// namesOf are the names of an address.
func (z *zone) namesOf(addr netip.Addr) []string {
	if names := z.resolver.ReverseLookup(addr); len(names) > 0 {
		return names
	}
	switch {
	case addr == ipv4().loopback || addr == ipv6().loopback:
		return []string{"localhost"}
	case z.cfg.Hostname != "" && (addr == z.cfg.IP4 || addr == z.cfg.IP6):
		return []string{z.cfg.Hostname}
	}
	return nil
}

// lookup finds a name as a program in this case may write it: in full, or
// completed by a domain of the search list. Resolvers that do not use the list
// for names with dots (musl) so find name.namespace too.
func (z *zone) lookup(name string) (Records, bool) {
	if records, known := z.resolver.Lookup(name); known {
		return records, true
	}
	switch name {
	case "":
		return Records{}, false
	case "localhost": // RFC 6761, 6.3
		return Records{Addresses: []netip.Addr{ipv4().loopback, ipv6().loopback}}, true
	case strings.ToLower(z.cfg.Hostname):
		own := []netip.Addr{z.cfg.IP4}
		if z.cfg.IP6.IsValid() {
			own = append(own, z.cfg.IP6)
		}
		return Records{Addresses: own}, true
	}
	if z.isOurs(name) {
		return Records{}, false
	}
	for _, domain := range z.cfg.Search {
		// A namespace is no host: it must not hide one of the same name outside.
		records, known := z.resolver.Lookup(name + "." + domain)
		if known && len(records.Addresses)+len(records.Services) > 0 {
			return records, true
		}
	}
	return Records{}, false
}

// isOurs reports whether name is in a domain that only the mesh can know.
func (z *zone) isOurs(name string) bool {
	in := func(domain string) bool { return name == domain || strings.HasSuffix(name, "."+domain) }
	return slices.ContainsFunc(z.cfg.Search, in) || slices.ContainsFunc(z.reverse, in)
}

// answers are the records that q asks for, in random order, as the callers take
// the first, and those that it will ask for next (RFC 2782).
func answers(q dns.Question, r *Records) (answer, extra []dns.RR) {
	asks := func(typ uint16) bool { return q.Qtype == typ || q.Qtype == dns.TypeANY }
	for _, rr := range addressRecords(q.Name, r.Addresses) {
		if asks(rr.Header().Rrtype) {
			answer = append(answer, rr)
		}
	}
	if asks(dns.TypeSRV) {
		for i := range r.Services {
			s := &r.Services[i]
			answer = append(answer, &dns.SRV{
				Hdr: header(q.Name, dns.TypeSRV), Weight: 1, Port: s.Port, Target: dns.Fqdn(s.Target),
			})
			extra = append(extra, addressRecords(dns.Fqdn(s.Target), s.Addresses)...)
		}
	}
	//nolint:gosec // spreads load, keeps no secret
	rand.Shuffle(len(answer), func(i, j int) { answer[i], answer[j] = answer[j], answer[i] })
	return answer, extra
}

func addressRecords(name string, addrs []netip.Addr) (rrs []dns.RR) {
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() {
			rrs = append(rrs, &dns.A{Hdr: header(name, dns.TypeA), A: a.AsSlice()})
		} else {
			rrs = append(rrs, &dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
	return rrs
}

// pointers are the answers to a question about an address.
func pointers(q dns.Question, names []string) (rrs []dns.RR) {
	if q.Qtype != dns.TypePTR && q.Qtype != dns.TypeANY {
		return nil
	}
	for _, name := range names {
		rrs = append(rrs, &dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: dns.Fqdn(name)})
	}
	return rrs
}

func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: dnsTTL}
}

// reverseDomain is the domain of the addresses in p, as far as p is of whole
// labels: an octet of IPv4, four bits of IPv6.
func reverseDomain(p netip.Prefix) string {
	var labels []string
	bits, zone := 8, "in-addr.arpa"
	if p.Addr().Is6() {
		bits, zone = 4, "ip6.arpa"
	}
	all, _ := dns.ReverseAddr(p.Addr().String()) // fails for what is no address
	labels = strings.Split(strings.TrimSuffix(all, "."+zone+"."), ".")
	labels = labels[len(labels)-min(p.Bits()/bits, len(labels)):]
	return strings.Join(append(labels, zone), ".")
}

// parseReverse reads the name of a PTR question (RFC 1035 3.5, RFC 3596 2.5).
func parseReverse(name string) (netip.Addr, bool) {
	if v, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		labels := strings.Split(v, ".")
		if len(labels) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(labels[3] + "." + labels[2] + "." + labels[1] + "." + labels[0])
		return a, err == nil
	}
	v, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(v) != 63 {
		return netip.Addr{}, false
	}
	var b strings.Builder
	for i := 62; i >= 0; i -= 2 {
		b.WriteByte(v[i])
		if i%8 == 0 && i > 0 {
			b.WriteByte(':')
		}
		if i > 0 && v[i-1] != '.' {
			return netip.Addr{}, false
		}
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil && a.Is6() && a.Zone() == ""
}
