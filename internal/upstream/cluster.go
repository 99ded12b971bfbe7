package upstream

import (
	"net/netip"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// Member is an endpoint in its role in one cluster. It is immutable.
type Member struct {
	*Endpoint
	Workload string // key of the workload behind it; "" outside the mesh
	Weight   uint32 // at least 1
}

// Cluster is the set of ready endpoints of one mesh.Cluster at one version of
// the configuration. It is immutable; its endpoints live on from version to
// version as long as their address stays.
type Cluster struct {
	mesh.Cluster
	Members []Member // in the order of the configuration
}

// NewCluster makes the next version of a cluster. Endpoints of prev (nil at
// first) with the same address are kept with their connections; for new ones
// dial is asked for a way to connect.
func NewCluster(c mesh.Cluster, eps []mesh.Endpoint, prev *Cluster, limits Limits, dial func(netip.AddrPort) DialFunc) *Cluster {
	old := map[netip.AddrPort]*Endpoint{}
	if prev != nil {
		for _, m := range prev.Members {
			old[m.Addr()] = m.Endpoint
		}
	}
	next := &Cluster{Cluster: c, Members: make([]Member, 0, len(eps))}
	for _, ep := range eps {
		e := old[ep.Address]
		if e == nil {
			e = NewEndpoint(ep.Address, dial(ep.Address), limits)
			old[ep.Address] = e // the same address twice is one endpoint
		}
		next.Members = append(next.Members, Member{Endpoint: e, Workload: ep.Workload, Weight: max(ep.Weight, 1)})
	}
	return next
}

// Retire closes the endpoints of c that next (nil: none) does not have.
func (c *Cluster) Retire(next *Cluster) {
	kept := map[*Endpoint]bool{}
	if next != nil {
		for _, m := range next.Members {
			kept[m.Endpoint] = true
		}
	}
	for _, m := range c.Members {
		if !kept[m.Endpoint] {
			m.Close()
		}
	}
}

// Pick chooses a member by least requests in flight: all are compared when
// there are at most two, otherwise two that rnd selects, as Envoy does. With
// equal load rnd decides. Weights divide the load of a member. It returns -1
// when the cluster is empty.
func (c *Cluster) Pick(rnd uint64) int {
	n := uint64(len(c.Members))
	switch n {
	case 0:
		return -1
	case 1:
		return 0
	}
	i := rnd >> 32 % n
	j := rnd & 0xffffffff % (n - 1)
	if j >= i {
		j++
	}
	a, b := &c.Members[i], &c.Members[j]
	// Compare (active+1)/weight without division.
	if (uint64(max(b.Active(), 0))+1)*uint64(a.Weight) < (uint64(max(a.Active(), 0))+1)*uint64(b.Weight) {
		return int(j)
	}
	return int(i)
}
