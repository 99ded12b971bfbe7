package graph

import (
	"maps"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// unifyVersions gives parties whose version one reporter does not know the
// version that the others know, if there is only one: a workload must not
// become two nodes because its proxy did not learn its peer in time.
func (ts tallies) unifyVersions() {
	type name struct{ namespace, workload string }
	versions := map[name]map[string]bool{}
	note := func(p party) {
		if p.workload != mesh.Unknown && p.version != mesh.Unknown {
			n := name{p.namespace, p.workload}
			if versions[n] == nil {
				versions[n] = map[string]bool{}
			}
			versions[n][p.version] = true
		}
	}
	for k := range ts {
		note(k.source)
		note(k.destination)
	}
	mend := func(p *party) {
		known := versions[name{p.namespace, p.workload}]
		if p.workload != mesh.Unknown && p.version == mesh.Unknown && len(known) == 1 {
			for v := range known {
				p.version = v
			}
		}
	}
	for k, t := range maps.Clone(ts) {
		n := k
		mend(&n.source)
		mend(&n.destination)
		if n == k {
			continue
		}
		delete(ts, k)
		if ts[n] == nil {
			ts[n] = newTally()
		}
		ts[n].add(t)
	}
}

// edgeKey identifies an edge of the graph.
type edgeKey struct {
	hop
	service string
}

// sides are the tallies of one hop, by service.
type sides struct {
	source, destination, lost map[string]*tally
}

// merge makes one tally for each edge out of those of both reporters.
func (ts tallies) merge() map[edgeKey]*tally {
	hops := map[hop]*sides{}
	for k, t := range ts {
		s := hops[k.hop]
		if s == nil {
			s = &sides{map[string]*tally{}, map[string]*tally{}, map[string]*tally{}}
			hops[k.hop] = s
		}
		switch {
		case k.reporter == byDestination:
			s.destination[k.service] = t
		case k.lost:
			s.lost[k.service] = t
		default:
			s.source[k.service] = t
		}
	}
	out := map[edgeKey]*tally{}
	put := func(h hop, service string, t *tally) {
		k := edgeKey{h, service}
		if out[k] == nil {
			out[k] = newTally()
		}
		out[k].add(t)
	}
	for h, s := range hops {
		for service, t := range s.lost {
			put(h, service, t)
		}
		switch {
		case len(s.destination) == 0:
			for service, t := range s.source {
				// Requests that were lost have their durations and bytes here.
				onlyLost := t.requests == 0 && s.lost[service] != nil
				if onlyLost || !arrived(hops, h, service) {
					put(h, service, t)
				}
			}
		case !covers(s.destination, s.source):
			// The workload belongs to several services, and its own proxy could not
			// tell which was called; the source knows.
			for service, t := range s.source {
				put(h, service, t)
			}
			security(out, h, s)
		default:
			for service, t := range s.destination {
				put(h, service, t)
				if sent, received, ok := s.ownBytes(service, t.requests); ok {
					edge := out[edgeKey{h, service}]
					edge.sent += sent - t.sent
					edge.received += received - t.received
				}
			}
		}
	}
	return out
}

// ownBytes are what the source's proxy counted as sent and received, without what it
// added to the messages on their way; ok is false if it counted nothing. If it
// knows of fewer requests than the destination's, most often because it was scraped
// earlier, the others are taken to be like those: the figure must not change to
// another kind of bytes from one scrape to the next.
func (s *sides) ownBytes(service string, requests float64) (sent, received float64, ok bool) {
	own := s.source[service]
	if own == nil || own.sent+own.received == 0 {
		return 0, 0, false
	}
	if own.requests >= requests {
		return own.sent, own.received, true
	}
	counted := own.requests
	if lost := s.lost[service]; lost != nil { // their bytes are own's, too
		counted += lost.requests
	}
	if counted == 0 {
		return 0, 0, false
	}
	factor := 1 + (requests-own.requests)/counted
	return own.sent * factor, own.received * factor, true
}

// arrived reports whether requests that the source reports without a workload
// are reported by a workload of that service: the source's proxy did not learn
// who served them, for example because the client went away first.
func arrived(hops map[hop]*sides, h hop, service string) bool {
	if h.destination.workload != mesh.Unknown || service == "" {
		return false
	}
	for other, s := range hops {
		if other.source == h.source && other.protocol == h.protocol && other.destination.workload != mesh.Unknown && s.destination[service] != nil {
			return true
		}
	}
	return false
}

// covers reports whether a has all services of b.
func covers(a, b map[string]*tally) bool {
	for service := range b {
		if a[service] == nil {
			return false
		}
	}
	return true
}

// security gives all edges of a hop the mutual-TLS share that the destination
// reports for the hop as a whole.
func security(out map[edgeKey]*tally, h hop, s *sides) {
	all := newTally()
	for _, t := range s.destination {
		all.add(t)
	}
	for service := range s.source {
		t := out[edgeKey{h, service}]
		t.secured, t.secureOf = all.secured, all.secureOf
	}
}
