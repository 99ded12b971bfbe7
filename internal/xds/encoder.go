package xds

import (
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/xds/envoy"
)

const (
	// maxVariants is how many contents the Encoder keeps of resources of one
	// name: routes differ from namespace to namespace.
	maxVariants = 32
	// maxLists is how many whole lists of one Kind the Encoder recognises.
	maxLists = 4
	// keepUnused is how long the Encoder keeps what nobody asks for while it asks for
	// other things; a pause ages nothing.
	keepUnused = time.Minute
)

// Encode translates a NodeConfig into resources. It fails when cfg is not
// valid: names missing, not ascending or twice, addresses missing, listeners
// without a destination, weights of 0 in sum.
func Encode(cfg *mesh.NodeConfig) (*Resources, error) { return NewEncoder().Encode(cfg) }

// Encoder is Encode for many proxies: what was encoded once is encoded again
// only if it changed. Safe for concurrent use.
type Encoder struct {
	mu        sync.Mutex // guards everything below
	clusters  shelf[mesh.Cluster]
	endpoints shelf[describedEndpoints]
	listeners shelf[mesh.Listener]
	routes    shelf[mesh.RouteConfig]
	workloads shelf[mesh.Workload]
	names     shelf[mesh.Name]
	described describedList
	swept     time.Time
	used      time.Time // last
}

// NewEncoder makes an Encoder that has seen nothing.
func NewEncoder() *Encoder {
	return &Encoder{
		clusters: shelf[mesh.Cluster]{
			kind: CDS, name: func(c *mesh.Cluster) string { return c.Name },
			same: func(a, b *mesh.Cluster) bool { return reflect.DeepEqual(a, b) }, encode: encodeCluster,
		},
		endpoints: shelf[describedEndpoints]{
			kind: EDS, name: func(e *describedEndpoints) string { return e.Cluster },
			same: sameEndpoints, encode: encodeEndpoints,
		},
		listeners: shelf[mesh.Listener]{
			kind: LDS, name: func(l *mesh.Listener) string { return l.Name },
			same: func(a, b *mesh.Listener) bool { return *a == *b }, encode: encodeListener,
		},
		routes: shelf[mesh.RouteConfig]{
			kind: RDS, name: func(c *mesh.RouteConfig) string { return c.Name },
			same: func(a, b *mesh.RouteConfig) bool { return reflect.DeepEqual(a, b) }, encode: encodeRoutes,
		},
		workloads: shelf[mesh.Workload]{
			kind: WDS, name: workloadName,
			same: func(a, b *mesh.Workload) bool { return reflect.DeepEqual(a, b) }, encode: encodeWorkload,
		},
		names: shelf[mesh.Name]{
			kind: NDS, name: func(n *mesh.Name) string { return n.Host },
			same: sameName, encode: encodeName,
		},
	}
}

func sameName(a, b *mesh.Name) bool {
	return a.Host == b.Host && a.Namespace == b.Namespace && a.Short == b.Short &&
		slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.SRV, b.SRV)
}

// Encode translates cfg, which must not be changed afterwards, since the
// Encoder compares later configurations with it. Proxies may share the result.
func (e *Encoder) Encode(cfg *mesh.NodeConfig) (*Resources, error) {
	if err := ascending(cfg); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	e.sweep(now)
	e.used = now
	var out Resources
	var err error
	for _, step := range [...]func() error{
		func() error { out[CDS], err = e.clusters.encodeAll(cfg.Clusters, now); return err },
		func() error { out[EDS], err = e.endpoints.encodeAll(e.describe(cfg, now), now); return err },
		func() error { out[LDS], err = e.listeners.encodeAll(cfg.Listeners, now); return err },
		func() error { out[RDS], err = e.routes.encodeAll(cfg.Routes, now); return err },
		func() error { out[WDS], err = e.workloads.encodeAll(cfg.Workloads, now); return err },
		func() error { out[NDS], err = e.names.encodeAll(cfg.Names, now); return err },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

// sweep forgets what was not used in the last keepUnused before the last Encode. So
// the next push, however late it comes, finds what the last one encoded; all
// proxies get theirs before what they do not use any more is looked at.
func (e *Encoder) sweep(now time.Time) {
	if now.Sub(e.swept) < keepUnused/2 {
		return
	}
	e.swept = now
	before := e.used.Add(-keepUnused)
	e.clusters.sweep(before)
	e.endpoints.sweep(before)
	e.listeners.sweep(before)
	e.routes.sweep(before)
	e.workloads.sweep(before)
	e.names.sweep(before)
	if e.described.used.Before(before) {
		e.described = describedList{}
	}
}

// describedEndpoints are endpoints with Istio's description of each one's
// workload, "" where it is not known. The encoded form depends on both.
type describedEndpoints struct {
	*mesh.ClusterEndpoints
	descriptions []string
}

func sameEndpoints(a, b *describedEndpoints) bool {
	return a.Cluster == b.Cluster && slices.Equal(a.Endpoints, b.Endpoints) && slices.Equal(a.descriptions, b.descriptions)
}

// describedList remembers the last described endpoints, since all proxies of a
// Snapshot have the same.
type describedList struct {
	endpoints []mesh.ClusterEndpoints
	workloads []mesh.Workload
	list      []describedEndpoints
	used      time.Time
}

func (e *Encoder) describe(cfg *mesh.NodeConfig, now time.Time) []describedEndpoints {
	d := &e.described
	if sameList(d.endpoints, cfg.Endpoints) && sameList(d.workloads, cfg.Workloads) {
		d.used = now
		return d.list
	}
	byKey := make(map[string]string, len(cfg.Workloads))
	for i := range cfg.Workloads {
		byKey[cfg.Workloads[i].Key()] = describe(&cfg.Workloads[i])
	}
	list := make([]describedEndpoints, len(cfg.Endpoints))
	for i := range cfg.Endpoints {
		list[i].ClusterEndpoints = &cfg.Endpoints[i]
		list[i].descriptions = make([]string, len(cfg.Endpoints[i].Endpoints))
		for j := range cfg.Endpoints[i].Endpoints {
			list[i].descriptions[j] = byKey[cfg.Endpoints[i].Endpoints[j].Workload]
		}
	}
	*d = describedList{endpoints: cfg.Endpoints, workloads: cfg.Workloads, list: list, used: now}
	return list
}

// sameList reports whether a and b are the same memory; published lists never
// change, so they are then equal.
func sameList[T any](a, b []T) bool {
	return len(a) == len(b) && len(a) > 0 && &a[0] == &b[0]
}

// shelf keeps the encoded resources of one Kind.
type shelf[T any] struct {
	kind   Kind
	name   func(*T) string
	same   func(a, b *T) bool
	encode func(*T) (envoy.Message, error)

	items map[string][]*variant[T] // by name, the longest unused first
	lists []wholeList[T]           // the longest unused first
}

type variant[T any] struct {
	source   *T
	resource Resource
	used     time.Time
}

type wholeList[T any] struct {
	source    []T
	resources []Resource
	used      time.Time
}

// encodeAll encodes a list. Lists that several proxies share are encoded once.
func (s *shelf[T]) encodeAll(list []T, now time.Time) ([]Resource, error) {
	for i := range s.lists {
		if sameList(s.lists[i].source, list) {
			s.lists[i].used = now
			moveToEnd(s.lists, i)
			return s.lists[len(s.lists)-1].resources, nil
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	out := make([]Resource, len(list))
	for i := range list {
		r, err := s.encodeOne(&list[i], now)
		if err != nil {
			return nil, err
		}
		out[i] = r
	}
	byName := func(a, b Resource) int { return strings.Compare(a.Name, b.Name) }
	if !slices.IsSortedFunc(out, byName) {
		slices.SortFunc(out, byName) // workloads of several clusters
	}
	if s.lists = append(s.lists, wholeList[T]{source: list, resources: out, used: now}); len(s.lists) > maxLists {
		s.lists = slices.Delete(s.lists, 0, 1)
	}
	return out, nil
}

// moveToEnd makes list[i] the last of the list and keeps the order of the others.
func moveToEnd[T any](list []T, i int) {
	v := list[i]
	copy(list[i:], list[i+1:])
	list[len(list)-1] = v
}

func (s *shelf[T]) encodeOne(item *T, now time.Time) (Resource, error) {
	name := s.name(item)
	variants := s.items[name]
	for i, v := range variants {
		if v.source == item {
			v.used = now
			moveToEnd(variants, i)
			return v.resource, nil
		}
	}
	for i, v := range variants {
		if s.same(v.source, item) {
			v.source, v.used = item, now // lets go of the older snapshot
			moveToEnd(variants, i)
			return v.resource, nil
		}
	}
	m, err := s.encode(item)
	r, err := finish(s.kind, name, m, err)
	if err != nil {
		return r, err
	}
	if s.items == nil {
		s.items = map[string][]*variant[T]{}
	}
	if variants = append(variants, &variant[T]{source: item, resource: r, used: now}); len(variants) > maxVariants {
		variants = slices.Delete(variants, 0, 1)
	}
	s.items[name] = variants
	return r, nil
}

func (s *shelf[T]) sweep(before time.Time) {
	for name, variants := range s.items {
		variants = slices.DeleteFunc(variants, func(v *variant[T]) bool { return v.used.Before(before) })
		if len(variants) == 0 {
			delete(s.items, name)
			continue
		}
		s.items[name] = variants
	}
	s.lists = slices.DeleteFunc(s.lists, func(l wholeList[T]) bool { return l.used.Before(before) })
}

// ascending checks the order of all lists of cfg.
func ascending(cfg *mesh.NodeConfig) error {
	for _, err := range [...]error{
		sorted("cluster", cfg.Clusters, func(c *mesh.Cluster) string { return c.Name }),
		sorted("endpoints of cluster", cfg.Endpoints, func(e *mesh.ClusterEndpoints) string { return e.Cluster }),
		sorted("listener", cfg.Listeners, func(l *mesh.Listener) string { return l.Name }),
		sorted("routes", cfg.Routes, func(c *mesh.RouteConfig) string { return c.Name }),
		sorted("workload", cfg.Workloads, func(w *mesh.Workload) string { return w.Key() }),
		sorted("name", cfg.Names, func(n *mesh.Name) string { return n.Host }),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}
