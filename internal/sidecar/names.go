package sidecar

import (
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/vitrine-mesh/vitrine/internal/intercept"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// names is what the case's DNS answers: the names of the configuration in
// force. It may be read and replaced at any time by any number of goroutines.
type names struct{ table atomic.Pointer[nameTable] }

type nameTable struct {
	byName map[string]intercept.Records // names that others end with among them
	byAddr map[netip.Addr][]string
}

// set replaces all names. One without addresses, that of a headless service
// without ready pods, does not exist (Kubernetes' DNS specification, 2.4.1).
func (n *names) set(list []mesh.Name) {
	t := &nameTable{
		byName: make(map[string]intercept.Records, 2*len(list)),
		byAddr: make(map[netip.Addr][]string, len(list)),
	}
	list = slices.DeleteFunc(slices.Clone(list), func(n mesh.Name) bool { return len(n.Addresses) == 0 })
	for i := range list {
		t.add(list[i].Host, intercept.Records{Addresses: list[i].Addresses})
	}
	for i := range list {
		for _, r := range list[i].SRV {
			name := r.Service + "." + list[i].Host
			records := t.byName[name]
			records.Services = append(records.Services, intercept.ServiceRecord{
				Target: r.Target, Port: r.Port, Addresses: t.byName[r.Target].Addresses,
			})
			t.add(name, records)
		}
	}
	// A headless service and its pods have addresses in common: an address is the
	// pods' then (2.4.3), whose names are no service's.
	for _, ofService := range []bool{false, true} {
		mine := map[netip.Addr][]string{}
		for i := range list {
			if ofService != (list[i].Short != "") {
				continue
			}
			for _, a := range list[i].Addresses {
				mine[a] = append(mine[a], list[i].Host)
			}
		}
		for a, hosts := range mine {
			if t.byAddr[a] == nil {
				t.byAddr[a] = hosts
			}
		}
	}
	n.table.Store(t)
}

// add puts in a name, and the names that it ends with, as long as they are the
// mesh's.
func (t *nameTable) add(name string, records intercept.Records) {
	t.byName[name] = records
	for {
		_, rest, _ := strings.Cut(name, ".")
		if _, known := t.byName[rest]; known || !strings.HasSuffix(rest, mesh.DefaultDomain) {
			return
		}
		t.byName[rest] = intercept.Records{}
		name = rest
	}
}

// Lookup implements intercept.Resolver.
func (n *names) Lookup(name string) (records intercept.Records, known bool) {
	t := n.table.Load()
	if t == nil {
		return intercept.Records{}, false
	}
	records, known = t.byName[name]
	return records, known
}

// ReverseLookup implements intercept.Resolver.
func (n *names) ReverseLookup(addr netip.Addr) []string {
	t := n.table.Load()
	if t == nil {
		return nil
	}
	return t.byAddr[addr]
}
