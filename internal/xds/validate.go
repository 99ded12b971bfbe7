package xds

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// sorted checks that the names of a list are there and ascend strictly, which
// Encode relies on.
func sorted[T any](what string, list []T, name func(*T) string) error {
	for i := range list {
		n := name(&list[i])
		if n == "" {
			return fmt.Errorf("%s %d has no name", what, i)
		}
		if i > 0 && name(&list[i-1]) >= n {
			return fmt.Errorf("%s %q after %q: names must ascend", what, n, name(&list[i-1]))
		}
	}
	return nil
}

func validListener(l *mesh.Listener) error {
	switch {
	case !l.Address.IsValid() || l.Address.Addr().Zone() != "":
		return fmt.Errorf("address %v is not valid", l.Address)
	case l.Direction != mesh.Outbound && l.Direction != mesh.Inbound:
		return fmt.Errorf("direction %d is not known", l.Direction)
	case l.Protocol >= mesh.ProtocolUDP:
		return fmt.Errorf("protocol %v cannot be listened for", l.Protocol)
	case l.ProxyProtocol && (l.Direction != mesh.Inbound || l.Publish):
		return errors.New("a PROXY protocol header is for inbound listeners on a mesh IP only")
	}
	wantRoutes := l.Direction == mesh.Outbound && (l.Protocol == mesh.ProtocolAuto || l.Protocol.IsHTTP())
	wantCluster := l.Direction == mesh.Inbound || !l.Protocol.IsHTTP()
	if wantRoutes != (l.RouteConfig != "") {
		return fmt.Errorf("protocol %v with routes %q: requests of outbound listeners need routes, others must have none", l.Protocol, l.RouteConfig)
	}
	if wantCluster != (l.Cluster != "") {
		return fmt.Errorf("protocol %v with cluster %q: all but requests of outbound listeners need a cluster, those must have none", l.Protocol, l.Cluster)
	}
	return nil
}

func validRoutes(c *mesh.RouteConfig) error {
	seen := map[string]bool{}
	for i := range c.VirtualHosts {
		vh := &c.VirtualHosts[i]
		if vh.Name == "" || len(vh.Domains) == 0 {
			return fmt.Errorf("virtual host %q with %d domains needs a name and a domain", vh.Name, len(vh.Domains))
		}
		for _, d := range vh.Domains {
			if d == "" || seen[d] {
				return fmt.Errorf("virtual host %q: domain %q is empty or occurs twice", vh.Name, d)
			}
			seen[d] = true
		}
		for j := range vh.Routes {
			if err := validRoute(&vh.Routes[j]); err != nil {
				return fmt.Errorf("virtual host %q: route %d %q: %w", vh.Name, j, vh.Routes[j].Name, err)
			}
		}
	}
	return nil
}

func validRoute(r *mesh.Route) error {
	if r.Timeout < 0 {
		return fmt.Errorf("timeout %v is negative", r.Timeout)
	}
	var weights uint64
	for _, c := range r.Clusters {
		if c.Cluster == "" {
			return errors.New("a cluster has no name")
		}
		weights += uint64(c.Weight)
	}
	if weights == 0 || weights > 1<<32-1 {
		return fmt.Errorf("sum of weights is %d, want 1 to 4294967295", weights)
	}
	return nil
}

func validCluster(c *mesh.Cluster) error {
	switch {
	case c.Type > mesh.ClusterBlackHole:
		return fmt.Errorf("type %d is not known", c.Type)
	case c.ConnectTimeout < 0:
		return fmt.Errorf("connect timeout %v is negative", c.ConnectTimeout)
	case c.Type == mesh.ClusterLocal && c.Port == 0:
		return errors.New("port of the program is missing")
	case c.Service.IsZero() && len(c.Also) > 0:
		return errors.New("further services without a first one")
	}
	return nil
}

func validWorkload(w *mesh.Workload) error {
	if w.Name == "" || w.Namespace == "" {
		return errors.New("namespace or name is missing")
	}
	for _, a := range [...]netip.Addr{w.IP, w.CaseIP, w.CaseIP6} {
		if a.Zone() != "" {
			return fmt.Errorf("address %v has a zone", a)
		}
	}
	if i := slices.IndexFunc(w.Ports, func(p mesh.WorkloadPort) bool { return p.Protocol > mesh.ProtocolUDP }); i >= 0 {
		return fmt.Errorf("port %d: protocol %d is not known", w.Ports[i].Port, w.Ports[i].Protocol)
	}
	return nil
}

func validName(n *mesh.Name) error {
	if i := slices.IndexFunc(n.Addresses, func(a netip.Addr) bool { return !a.IsValid() || a.Zone() != "" }); i >= 0 {
		return fmt.Errorf("address %v is not valid", n.Addresses[i])
	}
	return nil
}

func validEndpoints(e *mesh.ClusterEndpoints) error {
	for i := range e.Endpoints {
		if a := e.Endpoints[i].Address; !a.IsValid() || a.Addr().Zone() != "" {
			return fmt.Errorf("address %v is not valid", a)
		}
	}
	return nil
}
