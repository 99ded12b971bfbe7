package intercept

import (
	"context"
	"errors"
	"fmt"
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
// not block. Names are in lower case, without a final dot. Results are only read.
type Resolver interface {
	// Lookup finds what there is under a full name; ServeDNS completes short ones
	// itself. known is true for every name that exists, thus also for one without
	// records that others end with (RFC 8020).
	Lookup(name string) (records Records, known bool)
	// ReverseLookup finds the full names of an address.
	ReverseLookup(addr netip.Addr) []string
}

// Records are what the mesh knows of a name.
type Records struct {
	Addresses []netip.Addr
	Services  []ServiceRecord
}

// ServiceRecord is one place where a service is, for a question of type SRV.
type ServiceRecord struct {
	Target    string
	Port      uint16
	Addresses []netip.Addr // of the target
}

// DNSForwarded is the result of an answer that came from the host's resolvers.
const DNSForwarded = "forwarded"

const (
	dnsTTL         = 30 // seconds, of our own answers
	forwardTimeout = 3 * time.Second
	// maxForwards bounds the questions that wait for the host's resolvers.
	maxForwards = 256
	// dnsUDPSize is how long a question by UDP may be, and maxDNSUDP an answer: both
	// are usual among servers. What is longer goes by TCP.
	dnsUDPSize = 1232
	maxDNSUDP  = 4096
)

// ServeDNS answers the DNS questions of the programs in the case until ctx is
// done or the case is gone: names that r knows by itself, everything else through
// the resolvers of the host. Nothing is cached. It may be called once.
func (c *Case) ServeDNS(ctx context.Context, r Resolver) error {
	h := &dnsHandler{
		zone:     newZone(&c.cfg, r),
		cfg:      &c.cfg,
		forwards: make(chan struct{}, maxForwards),
	}
	serve := dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) { h.serve(ctx, w, req) })
	var servers []*dns.Server
	for _, l := range c.listeners.dnsTCP {
		servers = append(servers, &dns.Server{Listener: l, Handler: serve})
	}
	for _, p := range c.listeners.dnsUDP {
		servers = append(servers, &dns.Server{PacketConn: p, Handler: serve, UDPSize: dnsUDPSize})
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
	zone     *zone
	cfg      *Config
	forwards chan struct{} // a token for each question that is being forwarded

	mu    sync.Mutex // guards the host's configuration as last read
	host  []string
	mtime time.Time
}

// serve answers one message.
func (h *dnsHandler) serve(ctx context.Context, w dns.ResponseWriter, req *dns.Msg) {
	answer := h.zone.answer(req)
	forwarded := false
	if answer == nil {
		answer, forwarded = h.forward(ctx, req)
	}
	opt := req.IsEdns0()
	if opt != nil && !forwarded {
		answer.SetEdns0(dnsUDPSize, opt.Do())
	}
	if h.cfg.DNSAnswered != nil {
		result := strings.ToLower(dns.RcodeToString[answer.Rcode])
		if forwarded {
			result = DNSForwarded
		}
		h.cfg.DNSAnswered(result)
	}
	size := dns.MaxMsgSize
	if _, udp := w.LocalAddr().(*net.UDPAddr); udp {
		size = dns.MinMsgSize
		if opt != nil {
			size = min(max(size, int(opt.UDPSize())), maxDNSUDP)
		}
	}
	fit(answer, size)
	_ = w.WriteMsg(answer) // the program went away
}

// fit makes m no longer than size, and says in it if what was asked for had to be
// left out. Additional records were not asked for (RFC 2181, 9).
func fit(m *dns.Msg, size int) {
	if len(m.Extra) > 0 {
		m.Compress = true
		if m.Len() > size {
			opt := m.IsEdns0()
			m.Extra = nil
			if opt != nil {
				m.Extra = []dns.RR{opt}
			}
		}
	}
	m.Truncate(size)
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
