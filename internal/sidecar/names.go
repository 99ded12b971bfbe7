package sidecar

import (
	"net/netip"
	"sync/atomic"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// names is what the case's DNS answers: the names of the configuration in
// force. It may be read and replaced at any time by any number of goroutines.
type names struct{ table atomic.Pointer[nameTable] }

type nameTable struct {
	byName map[string][]netip.Addr
	byAddr map[netip.Addr]string
}

// set replaces all names.
func (n *names) set(list []mesh.Name) {
	t := &nameTable{
		byName: make(map[string][]netip.Addr, len(list)),
		byAddr: make(map[netip.Addr]string, len(list)),
	}
	for i := range list {
		t.byName[list[i].Host] = list[i].Addresses
		for _, a := range list[i].Addresses {
			// A headless service and its pods have addresses in common: the
			// more specific name, which is no service's, is the better one.
			if t.byAddr[a] == "" || list[i].Short == "" {
				t.byAddr[a] = list[i].Host
			}
		}
	}
	n.table.Store(t)
}

// Lookup implements intercept.Resolver. Host names are full ones; DNS itself
// completes shorter spellings.
func (n *names) Lookup(name string) (addrs []netip.Addr, known bool) {
	t := n.table.Load()
	if t == nil {
		return nil, false
	}
	addrs, known = t.byName[name]
	return addrs, known
}

// ReverseLookup implements intercept.ReverseResolver.
func (n *names) ReverseLookup(addr netip.Addr) (name string, known bool) {
	t := n.table.Load()
	if t == nil {
		return "", false
	}
	name, known = t.byAddr[addr]
	return name, known
}
