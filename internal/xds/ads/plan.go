package ads

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/xds"
	"github.com/vitrine-mesh/vitrine/internal/xds/envoy"
)

// plan queues what the proxy lacks. While responses are not answered, only new
// subscriptions are served; what else changed is worked out from the newest
// configuration when the last answer comes, so nothing piles up and changes that
// belong together are sent together. Clusters and endpoints are taken away only
// after everything that may refer to them was told, and what refers to new ones
// is told when they are complete (see warming).
func (p *proxy) plan() {
	if p.node == "" {
		return
	}
	p.planned = time.Now()
	idle := p.owed() == 0
	if p.outdated && (idle || p.resources == nil) {
		p.refresh()
	}
	if p.resources == nil {
		p.publish()
		return
	}
	for _, sub := range p.subs {
		if sub == nil || (!idle && !sub.answer && len(sub.asked) == 0) {
			continue
		}
		switch owed := sub.answer || len(sub.asked) > 0; sub.kind {
		case xds.CDS:
			known := sub.have
			p.planType(sub, false)
			if !owed {
				p.warm.add(known, sub.have, p.planned)
			}
		case xds.EDS:
			p.planType(sub, false)
		case xds.LDS, xds.RDS:
			if owed || !p.warming() {
				p.planType(sub, true)
			}
		default:
			p.planType(sub, true)
		}
	}
	// Of the older protocol, in which a response stands for itself, the answers to
	// the rest are waited for; incrementally all belongs together.
	if idle && !p.warming() && (p.delta || p.owed() == 0) {
		for _, k := range [...]xds.Kind{xds.EDS, xds.CDS} {
			if sub := p.subs[k]; sub != nil {
				p.planType(sub, true)
			}
		}
	}
	if p.told() {
		p.converged()
	}
	p.publish()
}

// told reports whether the proxy has answered everything that there is to tell.
func (p *proxy) told() bool { return !p.outdated && p.owed() == 0 && !p.warming() }

// converged notes that everything was answered: how long it took, unless the
// proxy refused something of it.
func (p *proxy) converged() {
	if !p.changedAt.IsZero() && !p.refused {
		p.server.metrics.convergence.Observe(time.Since(p.changedAt).Seconds())
	}
	p.changedAt, p.refused = time.Time{}, false
}

// refresh fetches the newest configuration.
func (p *proxy) refresh() {
	at := p.server.lastNotified()
	resources, err := p.server.fetch(p.node)
	p.outdated, p.fetched, p.fault = false, at, ""
	if err != nil && !errors.Is(err, errNone) {
		p.fault = err.Error()
	}
	p.server.fault(p, p.fault)
	if err != nil {
		p.server.opts.Log.Debug("proxy gets no configuration", "node", p.node, "error", err)
		return
	}
	if version := resources.Fingerprint().String(); version != p.version || p.resources == nil {
		if p.resources != nil { // the first is asked for, not announced
			p.server.metrics.queueTime.Observe(time.Since(at).Seconds())
		}
		p.resources, p.version = resources, version
		if p.changedAt.IsZero() {
			p.changedAt = at
		}
	}
}

// planType queues what the proxy lacks of one type; what is gone is taken away only
// if removals is set.
func (p *proxy) planType(sub *subscription, removals bool) {
	if p.delta {
		p.planDelta(sub, removals)
		return
	}
	p.planWorld(sub, removals)
}

// planDelta queues the difference between what the proxy has and what it
// should have; resources that are gone only if removals is set.
func (p *proxy) planDelta(sub *subscription, removals bool) {
	want := sub.wanted(p.resources[sub.kind])
	changed, removed := difference(sub.have, want)
	var kept []xds.Resource
	if !removals && len(removed) > 0 {
		kept = sub.have
		removed = nil
	}
	removed = append(removed, sub.missing(want)...)
	sub.asked = nil
	if len(changed) == 0 && len(removed) == 0 && !sub.answer {
		if kept == nil {
			sub.have = want // equal, but newer memory
		}
		return
	}
	sub.answer = false
	sub.have = want
	if kept != nil {
		sub.have = union(kept, want)
	}
	for {
		n, size := 0, 0
		for n < len(changed) && (n == 0 || size+len(changed[n].Body) <= maxResponseBytes) {
			size += len(changed[n].Body)
			n++
		}
		m := &envoy.DeltaDiscoveryResponse{SystemVersionInfo: p.version, TypeURL: sub.kind.TypeURL(), Nonce: p.nonce()}
		sent := changed[:n]
		for _, r := range sent {
			m.Resources = append(m.Resources, &envoy.Resource{
				Name: r.Name, Version: r.Version, Resource: &envoy.Any{TypeURL: m.TypeURL, Value: r.Body},
			})
		}
		if changed = changed[n:]; len(changed) == 0 {
			m.RemovedResources = removed
		}
		p.send(sub, m, m.Nonce, awaited{version: p.version, sent: sent, removed: m.RemovedResources}, size)
		if len(changed) == 0 {
			return
		}
	}
}

// missing lists the names that were just asked for and do not exist.
func (sub *subscription) missing(want []xds.Resource) []string {
	var out []string
	for _, name := range sub.asked {
		_, ok := slices.BinarySearchFunc(want, name, func(r xds.Resource, name string) int { return strings.Compare(r.Name, name) })
		if !ok && sub.names[name] {
			out = append(out, name)
		}
	}
	return out
}

// planWorld queues the full list of a type if it differs from the last one;
// without removals what is gone stays in it for now.
func (p *proxy) planWorld(sub *subscription, removals bool) {
	want := sub.wanted(p.resources[sub.kind])
	if !removals {
		want = union(sub.wanted(sub.have), want)
	}
	var f xds.Fingerprint
	for i := range want {
		f.Add(sub.kind, want[i].Name, want[i].Version)
	}
	version := f.String()
	if version == sub.worldSent && !sub.answer {
		return
	}
	m := &envoy.DiscoveryResponse{VersionInfo: version, TypeURL: sub.kind.TypeURL(), Nonce: p.nonce()}
	size := 0
	if sub.kind == xds.NDS {
		table := xds.JoinNames(want)
		m.Resources, size = []*envoy.Any{table}, len(table.Value)
	} else {
		for i := range want {
			size += len(want[i].Body)
			m.Resources = append(m.Resources, &envoy.Any{TypeURL: m.TypeURL, Value: want[i].Body})
		}
	}
	sub.answer, sub.worldSent, sub.have = false, version, want
	p.send(sub, m, m.Nonce, awaited{version: version, sent: want, all: true}, size)
}

func (p *proxy) send(sub *subscription, m envoy.Message, nonce string, wait awaited, size int) {
	p.queue = append(p.queue, response{message: m, kind: sub.kind, size: size, planned: p.planned})
	sub.waitFor[nonce] = wait
	sub.status.Sent, sub.status.Nonce = wait.version, nonce
}

// difference compares two lists sorted by name.
func difference(have, want []xds.Resource) (changed []xds.Resource, removed []string) {
	if len(have) == len(want) && (len(have) == 0 || &have[0] == &want[0]) {
		return nil, nil
	}
	for len(have) > 0 || len(want) > 0 {
		switch {
		case len(want) == 0 || (len(have) > 0 && have[0].Name < want[0].Name):
			removed = append(removed, have[0].Name)
			have = have[1:]
		case len(have) == 0 || want[0].Name < have[0].Name:
			changed = append(changed, want[0])
			want = want[1:]
		default:
			if have[0].Version != want[0].Version {
				changed = append(changed, want[0])
			}
			have, want = have[1:], want[1:]
		}
	}
	return changed, removed
}

// union is want and those of have that want lacks, sorted by name.
func union(have, want []xds.Resource) []xds.Resource {
	out := make([]xds.Resource, 0, len(have))
	for len(have) > 0 || len(want) > 0 {
		switch {
		case len(want) == 0 || (len(have) > 0 && have[0].Name < want[0].Name):
			out = append(out, have[0])
			have = have[1:]
		case len(have) == 0 || want[0].Name < have[0].Name:
			out = append(out, want[0])
			want = want[1:]
		default:
			out = append(out, want[0])
			have, want = have[1:], want[1:]
		}
	}
	return out
}
