package ads

import (
	"slices"
	"strings"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/xds"
)

// warmTime is how long listeners and routes wait for a proxy to ask for the endpoints
// of a new cluster. Envoy does so at once.
const warmTime = 2 * time.Second

// warming are the clusters that a proxy was told of and does not use yet, since it
// lacks their endpoints: it asks for these when it has got the cluster. A request that a
// route sends there meanwhile would be answered with 503 and the flag NC.
type warming struct {
	clusters []string
	since    time.Time
}

// add notes the clusters of now that were not known, in order of their names.
func (w *warming) add(known, now []xds.Resource, at time.Time) {
	for i := range now {
		if _, ok := slices.BinarySearchFunc(known, now[i].Name, byNameOf); !ok {
			w.clusters = append(w.clusters, now[i].Name)
			w.since = at
		}
	}
}

func byNameOf(r xds.Resource, name string) int { return strings.Compare(r.Name, name) }

// warming reports whether the proxy has to get complete clusters before it is told of
// what refers to them. One that asks for the endpoints of all clusters together, as
// our own do, need not wait: it uses nothing before it has everything.
func (p *proxy) warming() bool {
	if len(p.warm.clusters) == 0 {
		return false
	}
	clusters, endpoints := p.subs[xds.CDS], p.subs[xds.EDS]
	if endpoints == nil || endpoints.all || time.Since(p.warm.since) >= warmTime {
		p.warm.clusters = nil
		return false
	}
	p.warm.clusters = slices.DeleteFunc(p.warm.clusters, func(name string) bool {
		_, ok := slices.BinarySearchFunc(p.resources[xds.EDS], name, byNameOf)
		return !ok // it has no list of endpoints, or is gone again
	})
	if slices.ContainsFunc(p.warm.clusters, func(name string) bool { return !endpoints.names[name] }) ||
		len(clusters.waitFor)+len(endpoints.waitFor) > 0 {
		return true
	}
	p.warm.clusters = nil
	return false
}
