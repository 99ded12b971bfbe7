package proxy

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/route"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

// ownEdge is the series of what comes in for cl, a port of the workload's own program
// to which several services lead.
// The last one is kept: a connection hardly ever names two services.
func (c *conn) ownEdge(cl *cluster, authority []byte) *telemetry.Edge {
	if c.lastEdge != nil && bytes.Equal(c.lastHost, authority) {
		return c.lastEdge
	}
	namespace := ""
	if c.peer != nil {
		namespace = c.peer.Namespace
	}
	c.lastHost = append(c.lastHost[:0], authority...)
	c.lastEdge = c.p.o.Recorder.Edge(telemetry.EdgeKey{
		Direction: mesh.Inbound, Peer: c.peer, ServiceName: cl.serviceName,
		Service: c.called(cl, authority, c.p.o.Self.Name, namespace),
	})
	return c.lastEdge
}

// called finds which of the services of cl a caller in the given namespace ("" is
// any) means by authority: the one that it names, the one that has it as an address, or
// the one of whose pod of that name it is the name. It is the first one of cl if none
// is meant, and for what has no authority.
func (c *conn) called(cl *cluster, authority []byte, pod, namespace string) mesh.ServiceRef {
	if len(cl.Also) == 0 || len(authority) == 0 {
		return cl.Service
	}
	host := route.Host(authority)
	find := func(means func(*mesh.ServiceRef) bool) *mesh.ServiceRef {
		if means(&cl.Service) {
			return &cl.Service
		}
		for i := range cl.Also {
			if means(&cl.Also[i]) {
				return &cl.Also[i]
			}
		}
		return nil
	}
	means := func(ref *mesh.ServiceRef) bool { return names(ref, host, namespace) }
	if address, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		means = func(ref *mesh.ServiceRef) bool { return slices.Contains(c.snap.addresses[ref.Host], address) }
	}
	if ref := find(means); ref != nil {
		return *ref
	}
	if of, ok := strings.CutPrefix(host, pod+"."); ok {
		if ref := find(func(ref *mesh.ServiceRef) bool { return names(ref, of, namespace) }); ref != nil {
			return *ref
		}
	}
	return cl.Service
}

// names reports whether host is a name of the service for a caller in the namespace; ""
// is any.
func names(ref *mesh.ServiceRef, host, namespace string) bool {
	return host == ref.Host || slices.Contains(ref.ShortNames(cmp.Or(namespace, ref.Namespace)), host)
}
