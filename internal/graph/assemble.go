package graph

import (
	"cmp"
	"maps"
	"slices"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// assemble fills in nodes and edges.
func (g *Graph) assemble(edges map[edgeKey]*tally, namespace string) {
	nodes := map[string]*nodeSum{}
	for k, t := range edges {
		if !t.moved() || !touches(k, namespace) {
			continue
		}
		source, destination := node(k.source, t.app[0]), node(k.destination, t.app[1])
		g.Edges = append(g.Edges, g.edge(k, t, source.ID, destination.ID))
		sum(nodes, source).out.add(t)
		sum(nodes, destination).in.add(t)
	}
	slices.SortFunc(g.Edges, func(a, b Edge) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Destination, b.Destination),
			cmp.Compare(a.Service, b.Service), cmp.Compare(a.Protocol, b.Protocol))
	})
	for _, id := range slices.Sorted(maps.Keys(nodes)) {
		n := nodes[id]
		n.Incoming, n.Outgoing = g.traffic(n.in), g.traffic(n.out)
		n.Health = worse(health(n.in.requests, n.in.errors), health(n.out.requests, n.out.errors))
		g.Nodes = append(g.Nodes, n.Node)
	}
}

// nodeSum is a node with the sums of its edges.
type nodeSum struct {
	Node
	in, out *tally
}

func sum(nodes map[string]*nodeSum, n Node) *nodeSum {
	s := nodes[n.ID]
	if s == nil {
		s = &nodeSum{Node: n, in: newTally(), out: newTally()}
		nodes[n.ID] = s
	}
	s.App = max(s.App, n.App)
	return s
}

// moved reports whether anything at all happened on an edge.
func (t *tally) moved() bool {
	return t.requests+t.sent+t.received+t.opened+t.msgSent+t.msgRecv > 0
}

func touches(k edgeKey, namespace string) bool {
	return namespace == "" || k.source.namespace == namespace || k.destination.namespace == namespace
}

// node is the node of a party, without figures.
func node(p party, app string) Node {
	n := Node{Namespace: p.namespace}
	switch {
	case p.workload != mesh.Unknown:
		n.Kind, n.Workload, n.App, n.Version = KindWorkload, p.workload, app, known(p.version)
		n.ID = id(n.Kind, n.Namespace, n.Workload)
		if n.Version != "" {
			n.ID += "@" + n.Version
		}
	case p.cluster != "":
		n.Kind, n.Service = KindPassthrough, cmp.Or(p.service, p.cluster)
		n.ID = id(n.Kind, "", n.Service)
		if p.cluster == mesh.BlackHoleCluster && p.service != "" {
			// Blocked and passed-through traffic to one host are different things.
			n.ID = id(n.Kind, p.cluster, n.Service)
		}
	case p.service != "":
		n.Kind, n.Service = KindService, p.service
		n.ID = id(n.Kind, n.Namespace, n.Service)
	default:
		n.Kind = KindUnknown
		n.ID = id(n.Kind, n.Namespace, "")
	}
	return n
}

func id(k Kind, namespace, name string) string {
	out := string(k)
	if namespace != "" {
		out += "/" + namespace
	}
	if name != "" {
		out += "/" + name
	}
	return out
}

func (g *Graph) edge(k edgeKey, t *tally, source, destination string) Edge {
	e := Edge{
		Source: source, Destination: destination, Service: k.service, Protocol: k.protocol,
		Requests:                  t.requests,
		RequestsPerSecond:         t.requests / g.EffectiveSeconds,
		Latency:                   latency(t.buckets),
		BytesSentPerSecond:        t.sent / g.EffectiveSeconds,
		BytesReceivedPerSecond:    t.received / g.EffectiveSeconds,
		MessagesSentPerSecond:     t.msgSent / g.EffectiveSeconds,
		MessagesReceivedPerSecond: t.msgRecv / g.EffectiveSeconds,
		ConnectionsOpened:         t.opened,
		Health:                    health(t.requests, t.errors),
	}
	if t.requests > 0 {
		e.ErrorShare = t.errors / t.requests
	}
	if t.secureOf > 0 {
		share := t.secured / t.secureOf
		e.MTLSShare = &share
	}
	for k, v := range t.codes {
		e.Codes = append(e.Codes, CodeCount{k[0], k[1], v})
	}
	slices.SortFunc(e.Codes, func(a, b CodeCount) int {
		return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.GRPCStatus, b.GRPCStatus))
	})
	for k, v := range t.flags {
		e.Flags = append(e.Flags, FlagCount{k, v})
	}
	slices.SortFunc(e.Flags, func(a, b FlagCount) int { return cmp.Compare(a.Flags, b.Flags) })
	return e
}

func (g *Graph) traffic(t *tally) Traffic {
	out := Traffic{
		RequestsPerSecond: t.requests / g.EffectiveSeconds,
		BytesPerSecond:    (t.sent + t.received) / g.EffectiveSeconds,
	}
	if t.requests > 0 {
		out.ErrorShare = t.errors / t.requests
	}
	return out
}

func health(requests, errors float64) Health {
	switch {
	case requests == 0:
		return HealthNone
	case errors/requests >= FailureShare:
		return HealthFailure
	case errors/requests >= DegradedShare:
		return HealthDegraded
	}
	return HealthHealthy
}

func worse(a, b Health) Health {
	order := []Health{HealthNone, HealthHealthy, HealthDegraded, HealthFailure}
	return order[max(slices.Index(order, a), slices.Index(order, b))]
}
