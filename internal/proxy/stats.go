package proxy

import (
	"cmp"
	"slices"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

// Stats are the figures of a proxy at one moment, for its admin pages.
type Stats struct {
	Clusters []ClusterStats // sorted by name
	// Connections from clients, open now and ever, by mesh.Direction.
	Active, Total [2]uint64
	ForcedCloses  uint64 // connections that Drain had to close
	Listening     []string
}

// ClusterStats are the figures of one cluster, endpoint by endpoint.
type ClusterStats struct {
	Name      string
	Type      mesh.ClusterType
	Service   mesh.ServiceRef
	Endpoints []EndpointStats // in the order of the configuration
}

// EndpointStats are the figures of one endpoint.
type EndpointStats struct {
	Address  string
	Workload string // key; "" outside the mesh
	Weight   uint32
	upstream.Counts
}

// Stats collects the figures. Destinations that are not configured but met are
// listed under PassthroughCluster, the program's ports under the inbound
// clusters' names.
func (p *Proxy) Stats() Stats {
	st := Stats{ForcedCloses: p.forced.Load()}
	p.mu.Lock()
	for c := range p.conns {
		st.Active[c.dir]++
	}
	for key := range p.listeners {
		st.Listening = append(st.Listening, key.addr.String())
	}
	p.mu.Unlock()
	slices.Sort(st.Listening)
	for i := range st.Total {
		st.Total[i] = p.total[i].Load()
	}
	s := p.snap.Load()
	if s == nil {
		return st
	}
	local := map[uint16]*ClusterStats{}
	for _, cl := range s.clusters {
		st.Clusters = append(st.Clusters, ClusterStats{Name: cl.Name, Type: cl.Type, Service: cl.Service})
		cs := &st.Clusters[len(st.Clusters)-1]
		for i := range cl.Members {
			m := &cl.Members[i]
			cs.Endpoints = append(cs.Endpoints, EndpointStats{
				Address: m.Addr().String(), Workload: m.Workload, Weight: m.Weight, Counts: m.Counts(),
			})
		}
	}
	slices.SortFunc(st.Clusters, func(a, b ClusterStats) int { return cmp.Compare(a.Name, b.Name) })
	var passthrough, undeclared *ClusterStats
	for i := range st.Clusters {
		cs := &st.Clusters[i]
		switch {
		case cs.Type == mesh.ClusterLocal:
			local[s.clusters[cs.Name].Port] = cs
		case cs.Name == mesh.PassthroughCluster:
			passthrough = cs
		case cs.Name == mesh.InboundPassthroughCluster:
			undeclared = cs
		}
	}
	for key, e := range p.sources.Endpoints() {
		cs := passthrough
		switch {
		case !key.Source.IsValid():
		case key.Target.Addr().IsLoopback():
			cs = local[key.Target.Port()]
		default:
			cs = undeclared
		}
		if cs != nil {
			cs.Endpoints = append(cs.Endpoints, EndpointStats{Address: e.Addr().String(), Weight: 1, Counts: e.Counts()})
		}
	}
	return st
}
