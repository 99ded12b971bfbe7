package xds

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/xds/envoy"
)

// store holds decoded resources by Kind and name, and can go back to the state
// that was last committed. Not safe for concurrent use.
type store struct {
	entries [Kinds]map[string]entry
	undo    map[resourceKey]entry // what was there before the changes since commit
	seen    Fingerprint           // of all that was received, also of what was refused
	stale   [Kinds]bool           // the list in last is older than the entries
	last    mesh.NodeConfig
}

type resourceKey struct {
	kind Kind
	name string
}

// entry is one resource. The zero entry is none.
type entry struct {
	value    any    // *mesh.Cluster … *mesh.Name; nil if every version so far was refused
	version  string // of value
	received string // version that came last; differs from version if it was refused
	refusal  string // why received was refused; "" if it was not
}

func newStore() *store {
	s := &store{undo: map[resourceKey]entry{}}
	for k := range s.entries {
		s.entries[k] = map[string]entry{}
	}
	return s
}

// put decodes body and stores it under name. If that fails, what was stored
// under the name before stays.
func (s *store) put(k Kind, name, version string, body []byte) error {
	e := s.entries[k][name]
	e.received, e.refusal = version, ""
	value, err := decodeResource(k, name, body)
	if err == nil {
		e.value, e.version = value, version
	} else {
		err = fmt.Errorf("%v %q: %w", k, name, err)
		e.refusal = err.Error()
	}
	s.set(k, name, e)
	return err
}

// refused tells which resources are not in force in the version that came last;
// nil if all are.
func (s *store) refused() error {
	var errs []error
	for k := range s.entries {
		for _, name := range slices.Sorted(maps.Keys(s.entries[k])) {
			if e := s.entries[k][name]; e.refusal != "" {
				errs = append(errs, errors.New(e.refusal))
			}
		}
	}
	return errors.Join(errs...)
}

// inForce is the fingerprint of what is in force once it is committed: that of the
// control plane's configuration unless something of it was refused.
func (s *store) inForce() Fingerprint {
	f := s.seen
	for k := range s.entries {
		for name, e := range s.entries[k] {
			if e.received == e.version {
				continue
			}
			f.Remove(Kind(k), name, e.received)
			if e.value != nil {
				f.Add(Kind(k), name, e.version)
			}
		}
	}
	return f
}

func (s *store) remove(k Kind, name string) { s.set(k, name, entry{}) }

func (s *store) set(k Kind, name string, e entry) {
	old := s.entries[k][name]
	if old == e {
		return
	}
	key := resourceKey{kind: k, name: name}
	if _, ok := s.undo[key]; !ok {
		s.undo[key] = old
	}
	s.replace(k, name, old, e)
}

func (s *store) replace(k Kind, name string, old, e entry) {
	if old.received != "" {
		s.seen.Remove(k, name, old.received)
	}
	if e.received != "" {
		s.seen.Add(k, name, e.received)
	}
	if e == (entry{}) {
		delete(s.entries[k], name)
	} else {
		s.entries[k][name] = e
	}
	if old.value != e.value {
		s.stale[k] = true
	}
}

// commit makes the present state the one that rollback goes back to.
func (s *store) commit() { clear(s.undo) }

// dirty reports whether anything that counts changed since commit.
func (s *store) dirty() bool {
	for key, old := range s.undo {
		if s.entries[key.kind][key.name].value != old.value {
			return true
		}
	}
	return false
}

// rollback undoes all changes since commit.
func (s *store) rollback() {
	for key, old := range s.undo {
		s.replace(key.kind, key.name, s.entries[key.kind][key.name], old)
	}
	clear(s.undo)
}

// committed is the version of a resource at the last commit.
func (s *store) committed(k Kind, name string) string {
	if old, ok := s.undo[resourceKey{kind: k, name: name}]; ok {
		return old.version
	}
	return s.entries[k][name].version
}

// forgetRefused makes the store what a new stream is told that it is: resources
// in their versions in force.
func (s *store) forgetRefused() {
	for k := range s.entries {
		for name, e := range s.entries[k] {
			if e.received == e.version {
				continue
			}
			kept := entry{}
			if e.value != nil {
				kept = entry{value: e.value, version: e.version, received: e.version}
			}
			s.replace(Kind(k), name, e, kept)
		}
	}
}

// versions maps the names of a Kind to the versions that are in force.
func (s *store) versions(k Kind) map[string]string {
	out := make(map[string]string, len(s.entries[k]))
	for name, e := range s.entries[k] {
		if e.value != nil {
			out[name] = e.version
		}
	}
	return out
}

// config lists what is stored. Lists of Kinds without a change since the last
// call are the same memory as then; no list changes later.
func (s *store) config() *mesh.NodeConfig {
	cfg := &s.last
	relist(s, CDS, &cfg.Clusters)
	relist(s, EDS, &cfg.Endpoints)
	relist(s, LDS, &cfg.Listeners)
	relist(s, RDS, &cfg.Routes)
	if relist(s, WDS, &cfg.Workloads) {
		slices.SortFunc(cfg.Workloads, func(a, b mesh.Workload) int { return cmp.Compare(a.Key(), b.Key()) })
	}
	relist(s, NDS, &cfg.Names)
	return new(*cfg)
}

func relist[T any](s *store, k Kind, list *[]T) bool {
	if !s.stale[k] {
		return false
	}
	s.stale[k] = false
	*list = nil
	for _, name := range slices.Sorted(maps.Keys(s.entries[k])) {
		if v, ok := s.entries[k][name].value.(*T); ok {
			*list = append(*list, *v)
		}
	}
	return true
}

// decodeResource decodes one resource; the result is a *mesh.Cluster and so on.
func decodeResource(k Kind, name string, body []byte) (any, error) {
	m := k.message()
	if m == nil || name == "" {
		return nil, unsupported("resource without a name or a type")
	}
	if err := envoy.UnmarshalStrict(body, m); err != nil {
		return nil, err
	}
	switch m := m.(type) {
	case *envoy.Cluster:
		v, err := decodeCluster(m)
		return named(name, v.Name, &v, err)
	case *envoy.ClusterLoadAssignment:
		v, err := decodeEndpoints(m)
		return named(name, v.Cluster, &v, err)
	case *envoy.Listener:
		v, err := decodeListener(m)
		return named(name, v.Name, &v, err)
	case *envoy.RouteConfiguration:
		v, err := decodeRoutes(m)
		return named(name, v.Name, &v, err)
	case *envoy.Workload:
		v, err := decodeWorkload(m)
		return named(name, workloadName(&v), &v, err)
	case *envoy.NameTable:
		v, err := decodeName(name, m)
		return named(name, v.Host, &v, err)
	}
	return nil, unsupported("type %s", m.FullName())
}

func named[T any](name, own string, v *T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	if name != own {
		return nil, unsupported("it calls itself %q", own)
	}
	return v, nil
}
