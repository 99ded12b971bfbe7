package intercept

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// Resolver knows the names of the mesh. It must be safe for concurrent use and
// not block.
type Resolver interface {
	// Lookup finds the addresses of a name in lower case without a final dot.
	// known is true for every name of the mesh, even one without addresses.
	// ServeDNS completes short names itself; Lookup needs to know full ones only.
	// The result is only read.
	Lookup(name string) (addrs []netip.Addr, known bool)
}

// ReverseResolver is a Resolver that also answers PTR questions.
type ReverseResolver interface {
	Resolver
	// ReverseLookup finds the full name of an address, without a final dot.
	ReverseLookup(addr netip.Addr) (name string, known bool)
}

// DNSForwarded is the result of an answer that came from the host's resolvers.
const DNSForwarded = "forwarded"

const (
	dnsTTL         = 30 // seconds, of our own answers
	forwardTimeout = 3 * time.Second
	// maxForwards bounds the questions that wait for the host's resolvers.
	maxForwards = 256
)

// ServeDNS answers the DNS questions of the programs in the case until ctx is
// done or the case is gone: names that r knows by itself, everything else through
// the resolvers of the host. Nothing is cached. It may be called once.
func (c *Case) ServeDNS(ctx context.Context, r Resolver) error {
	h := &dnsHandler{
		resolver: r, cfg: &c.cfg,
		forwards: make(chan struct{}, maxForwards),
	}
	serve := dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) { h.serve(ctx, w, req) })
	var servers []*dns.Server
	for _, l := range c.listeners.dnsTCP {
		servers = append(servers, &dns.Server{Listener: l, Handler: serve})
	}
	for _, p := range c.listeners.dnsUDP {
		servers = append(servers, &dns.Server{PacketConn: p, Handler: serve})
	}
	var g errgroup.Group
	failed := make(chan struct{})
	var once sync.Once
	for _, s := range servers {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		ended := make(chan struct{})
		g.Go(func() error {
			defer close(ended)
			defer once.Do(func() { close(failed) })
			return s.ActivateAndServe()
		})
		select { // a server that is not up cannot be shut down
		case <-up:
		case <-ended:
		}
	}
	select {
	case <-ctx.Done():
	case <-c.done:
	case <-failed:
	}
	for _, s := range servers {
		_ = s.Shutdown()
	}
	err := g.Wait()
	select {
	case <-ctx.Done():
	case <-c.done:
	default:
		if err != nil && !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("serve dns: %w", err)
		}
	}
	return nil
}

// dnsHandler answers one question at a time.
type dnsHandler struct {
	resolver Resolver
	cfg      *Config
	forwards chan struct{} // a token for each question that is being forwarded

	mu    sync.Mutex // guards the host's configuration as last read
	host  []string
	mtime time.Time
}

// serve answers one message.
func (h *dnsHandler) serve(ctx context.Context, w dns.ResponseWriter, req *dns.Msg) {
	answer := h.answer(req)
	forwarded := false
	if answer == nil {
		answer, forwarded = h.forward(ctx, req)
	}
	if h.cfg.DNSAnswered != nil {
		result := strings.ToLower(dns.RcodeToString[answer.Rcode])
		if forwarded {
			result = DNSForwarded
		}
		h.cfg.DNSAnswered(result)
	}
	if _, udp := w.LocalAddr().(*net.UDPAddr); udp {
		size := dns.MinMsgSize
		if opt := req.IsEdns0(); opt != nil {
			size = max(size, int(opt.UDPSize()))
		}
		answer.Truncate(size)
	}
	_ = w.WriteMsg(answer) // the program went away
}

// answer is the answer to a question about the mesh; nil if it is for the host.
func (h *dnsHandler) answer(req *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(req)
	m.Authoritative, m.RecursionAvailable = true, true
	if len(req.Question) != 1 || req.Opcode != dns.OpcodeQuery {
		m.Rcode = dns.RcodeFormatError
		return m
	}
	q := req.Question[0]
	if q.Qclass != dns.ClassINET {
		return nil
	}
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	if q.Qtype == dns.TypePTR {
		return h.answerPTR(m, q, name)
	}
	addrs, known := h.lookup(name)
	switch {
	case known:
		m.Answer = records(q, addrs)
	case h.isOurs(name):
		m.Rcode = dns.RcodeNameError
	default:
		return nil
	}
	return m
}

func (h *dnsHandler) answerPTR(m *dns.Msg, q dns.Question, name string) *dns.Msg {
	addr, ok := parseReverse(name)
	if !ok {
		return nil
	}
	host := ""
	if h.cfg.Hostname != "" && (addr == h.cfg.IP4 || addr == h.cfg.IP6) {
		host, ok = h.cfg.Hostname, true
	} else if r, can := h.resolver.(ReverseResolver); can {
		host, ok = r.ReverseLookup(addr)
	} else {
		ok = false
	}
	if !ok {
		return nil
	}
	m.Answer = []dns.RR{&dns.PTR{
		Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: dnsTTL},
		Ptr: dns.Fqdn(host),
	}}
	return m
}

// lookup finds a name as a program in this case may write it: in full, or
// completed by a domain of the search list. Resolvers that do not use the list
// for names with dots (musl) so find name.namespace too.
func (h *dnsHandler) lookup(name string) ([]netip.Addr, bool) {
	if addrs, known := h.resolver.Lookup(name); known {
		return addrs, true
	}
	switch name {
	case "":
		return nil, false
	case "localhost": // RFC 6761, 6.3
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, true
	case strings.ToLower(h.cfg.Hostname):
		own := []netip.Addr{h.cfg.IP4}
		if h.cfg.IP6.IsValid() {
			own = append(own, h.cfg.IP6)
		}
		return own, true
	}
	if h.isOurs(name) {
		return nil, false
	}
	for _, domain := range h.cfg.Search {
		if addrs, known := h.resolver.Lookup(name + "." + domain); known {
			return addrs, true
		}
	}
	return nil, false
}

// isOurs reports whether name is in a domain that only the mesh can know.
func (h *dnsHandler) isOurs(name string) bool {
	for _, domain := range h.cfg.Search {
		if name == domain || strings.HasSuffix(name, "."+domain) {
			return true
		}
	}
	return false
}

// records are the answers to q, in random order, as the callers take the first.
func records(q dns.Question, addrs []netip.Addr) []dns.RR {
	var rrs []dns.RR
	hdr := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: dnsTTL}
	for _, a := range addrs {
		a = a.Unmap()
		switch {
		case q.Qtype == dns.TypeA && a.Is4():
			rrs = append(rrs, &dns.A{Hdr: hdr, A: a.AsSlice()})
		case q.Qtype == dns.TypeAAAA && a.Is6():
			rrs = append(rrs, &dns.AAAA{Hdr: hdr, AAAA: a.AsSlice()})
		}
	}
	//nolint:gosec // spreads load, keeps no secret
	rand.Shuffle(len(rrs), func(i, j int) { rrs[i], rrs[j] = rrs[j], rrs[i] })
	return rrs
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
	return a, err == nil && a.Is6()
}

// forward asks the resolvers of the host in turn, by UDP, and by TCP if the answer
// was cut. Without an answer it makes one that says so, and ok is false.
func (h *dnsHandler) forward(ctx context.Context, req *dns.Msg) (answer *dns.Msg, ok bool) {
	failure := new(dns.Msg)
	failure.SetRcode(req, dns.RcodeServerFailure)
	failure.RecursionAvailable = true
	select {
	case h.forwards <- struct{}{}:
		defer func() { <-h.forwards }()
	default:
		return failure, false
	}
	for _, server := range h.servers() {
		answer, err := exchange(ctx, "udp", server, req)
		if err == nil && answer.Truncated {
			if full, err := exchange(ctx, "tcp", server, req); err == nil {
				answer = full
			}
		}
		if err != nil || answer.Rcode == dns.RcodeServerFailure || answer.Rcode == dns.RcodeRefused {
			continue
		}
		return answer, true
	}
	return failure, false
}

func exchange(ctx context.Context, network, server string, req *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	client := dns.Client{Net: network, Timeout: forwardTimeout}
	answer, _, err := client.ExchangeContext(ctx, req.Copy(), server)
	if err != nil {
		return nil, fmt.Errorf("ask %s by %s: %w", server, network, err)
	}
	return answer, nil
}

// servers are the addresses to forward to.
func (h *dnsHandler) servers() []string {
	if len(h.cfg.Resolvers) > 0 {
		var s []string
		for _, a := range h.cfg.Resolvers {
			s = append(s, a.String())
		}
		return s
	}
	const path = "/etc/resolv.conf"
	info, err := os.Stat(path)
	if err != nil {
		return []string{"127.0.0.1:53"} // resolv.conf(5): the default
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.host != nil && info.ModTime().Equal(h.mtime) {
		return h.host
	}
	h.host, h.mtime = []string{"127.0.0.1:53"}, info.ModTime()
	conf, err := dns.ClientConfigFromFile(path)
	if err == nil && len(conf.Servers) > 0 {
		h.host = nil
		for _, s := range conf.Servers {
			h.host = append(h.host, net.JoinHostPort(s, conf.Port))
		}
	}
	return h.host
}
