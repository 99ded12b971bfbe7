package ads

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vitrine-mesh/vitrine/internal/xds"
	"github.com/vitrine-mesh/vitrine/internal/xds/envoy"
)

// maxResponseBytes is where an incremental response is split, so that it stays
// below the limits of common clients (4 MB for grpc-go).
const maxResponseBytes = 1 << 20

// wildcard is the name that subscribes to all resources of a type.
const wildcard = "*"

// proxy is the state of one stream. Only the goroutine of the stream touches
// it, except what mu guards.
type proxy struct {
	server *Server
	delta  bool
	wake   chan struct{} // has one element when there is a newer Snapshot
	since  time.Time

	node      string
	subs      [xds.Kinds]*subscription // nil for types not subscribed to
	resources *xds.Resources           // nil before the first successful fetch
	version   string                   // fingerprint of resources
	outdated  bool                     // a newer Snapshot exists
	fetched   time.Time                // of the Notify before the last fetch
	changedAt time.Time                // when the change behind resources was announced; zero once accepted
	refused   bool                     // something of what was sent since then
	fault     string                   // why the newest configuration cannot be told; "" if it can
	queue     []response               // not handed to the writer yet
	planned   time.Time                // when plan began last
	writing   bool                     // the writer has a response
	nonces    uint64
	warm      warming // clusters that the proxy does not use yet

	mu     sync.Mutex
	status ProxyStatus // guarded by mu
}

// response is one that waits for the writer.
type response struct {
	message envoy.Message
	kind    xds.Kind
	size    int       // bytes of resources
	planned time.Time // when it was begun to be worked out
}

// subscription is one resource type of a proxy.
type subscription struct {
	kind      xds.Kind
	all       bool
	names     map[string]bool    // asked for by name
	asked     []string           // names to be answered even if they do not exist
	have      []xds.Resource     // what the proxy was told, sorted by name
	answer    bool               // a response is owed even if it is empty
	waitFor   map[string]awaited // by nonce
	refusals  refusals
	status    TypeStatus
	worldSent string // state of the world: version of the last response
}

func newProxy(s *Server, delta bool) *proxy {
	now := time.Now()
	return &proxy{
		server: s, delta: delta, wake: make(chan struct{}, 1), since: now, outdated: true,
		status: ProxyStatus{Connected: now, Delta: delta},
	}
}

func (p *proxy) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *proxy) report() ProxyStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.status
	out.Types = slices.Clone(out.Types)
	return out
}

// publish copies the state of all subscriptions for report.
func (p *proxy) publish() {
	var types []TypeStatus
	for _, sub := range p.subs {
		if sub != nil {
			sub.status.Resources = len(sub.have)
			types = append(types, sub.status)
		}
	}
	p.mu.Lock()
	before := p.status.Current
	p.status.Node, p.status.Types, p.status.Fault = p.node, types, p.fault
	if p.told() {
		p.status.Told = p.fetched
		if p.fault == "" {
			p.status.Current = p.fetched
		}
	}
	caughtUp := !p.status.Current.Equal(before)
	p.mu.Unlock()
	if caughtUp {
		p.server.mu.Lock()
		defer p.server.mu.Unlock()
		p.server.progressed()
	}
}

// owed is how many responses the proxy has not answered or not got yet.
func (p *proxy) owed() int {
	n := len(p.queue)
	if p.writing {
		n++
	}
	for _, sub := range p.subs {
		if sub != nil {
			n += len(sub.waitFor)
		}
	}
	return n
}

// handle takes in one request. An error ends the stream.
func (p *proxy) handle(r *request) error {
	if r.node != nil && r.node.ID != "" && p.node == "" {
		p.node = r.node.ID
	}
	if p.node == "" {
		return status.Error(codes.InvalidArgument, "the first request must carry a node id")
	}
	kind, ok := xds.KindOf(r.typeURL)
	if !ok {
		p.server.opts.Log.Debug("proxy asks for a type that is not served", "node", p.node, "type", r.typeURL)
		return nil
	}
	sub := p.subs[kind]
	first := sub == nil
	if first {
		sub = &subscription{kind: kind, names: map[string]bool{}, waitFor: map[string]awaited{}, answer: true}
		sub.status.Kind = kind
		p.subs[kind] = sub
	}
	if r.nonce != "" && !p.answered(sub, r) && !p.delta && r.nonce != sub.status.Nonce && !first {
		// State of the world: what answers an older response is out of date. The
		// first request of a type may still bear the nonce of an earlier stream.
		return nil
	}
	if p.delta {
		sub.subscribe(r, first)
	} else {
		sub.restate(r.names, first)
	}
	return nil
}

// answered notes what the proxy says about a response; ok is false when the
// response is not one that is waited for.
func (p *proxy) answered(sub *subscription, r *request) (ok bool) {
	wait, ok := sub.waitFor[r.nonce]
	if !ok {
		return false
	}
	delete(sub.waitFor, r.nonce)
	if r.refusal != nil {
		p.server.metrics.rejects.WithLabelValues(sub.kind.String()).Inc()
		p.refused = true
		sub.refusals.add(&wait, r.refusal, time.Now())
		sub.status.LastError, sub.status.ErrorAt = sub.refusals.last()
		p.server.opts.Log.Error("proxy refuses its configuration and goes on with the one before",
			"node", p.node, "type", sub.kind.String(), "version", wait.version, "error", r.refusal.Message)
		return true
	}
	sub.status.Acked = wait.version
	sub.refusals.accept(&wait)
	for _, each := range p.subs {
		if each != nil {
			each.refusals.whole = refusal{}
			each.status.LastError, each.status.ErrorAt = each.refusals.last()
		}
	}
	return true
}

// subscribe applies the changes of an incremental request.
func (sub *subscription) subscribe(r *request, first bool) {
	if first {
		sub.all = len(r.subscribe) == 0
		for name, version := range r.initial {
			sub.have = append(sub.have, xds.Resource{Name: name, Version: version})
		}
		slices.SortFunc(sub.have, byName)
	}
	for _, name := range r.subscribe {
		if name == wildcard {
			sub.all = true
			continue
		}
		sub.names[name] = true
		sub.asked = append(sub.asked, name)
		if !first {
			sub.forget(name) // asking again means sending again
		}
	}
	for _, name := range r.unsubscribe {
		if name == wildcard {
			sub.all = false
			continue
		}
		delete(sub.names, name)
	}
	if len(r.unsubscribe) > 0 {
		sub.refusals.keep(sub.wants)
		sub.status.LastError, sub.status.ErrorAt = sub.refusals.last()
		sub.have = slices.DeleteFunc(slices.Clone(sub.have), func(res xds.Resource) bool { return !sub.wants(res.Name) })
	}
}

// restate applies the full list of names of a state-of-the-world request. An
// empty list means everything, unless names were asked for before.
func (sub *subscription) restate(names []string, first bool) {
	now := make(map[string]bool, len(names))
	for _, name := range names {
		now[name] = true
	}
	all := now[wildcard] || (len(names) == 0 && (first || sub.all))
	delete(now, wildcard)
	same := all == sub.all && len(now) == len(sub.names)
	for name := range now {
		same = same && sub.names[name]
	}
	if !same {
		sub.answer = true
	}
	sub.all, sub.names = all, now
}

func (sub *subscription) wants(name string) bool { return sub.all || sub.names[name] }

// forget makes the resource count as not sent. The list may be shared.
func (sub *subscription) forget(name string) {
	if i, ok := slices.BinarySearchFunc(sub.have, name, func(r xds.Resource, name string) int { return strings.Compare(r.Name, name) }); ok {
		sub.have = slices.Concat(sub.have[:i], sub.have[i+1:])
	}
}

// wanted lists the resources of the subscription. The list may be shared.
func (sub *subscription) wanted(all []xds.Resource) []xds.Resource {
	if sub.all {
		return all
	}
	var out []xds.Resource
	for i := range all {
		if sub.names[all[i].Name] {
			out = append(out, all[i])
		}
	}
	return out
}

func byName(a, b xds.Resource) int { return strings.Compare(a.Name, b.Name) }

func (p *proxy) nonce() string {
	p.nonces++
	return strconv.FormatUint(p.nonces, 10)
}
