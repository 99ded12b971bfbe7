package control

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/durable"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// Defaults of local mode. Istio waits 100 ms and at most 10 s, since a cluster
// has thousands of proxies; one machine can be quicker.
const (
	defaultQuietPeriod = 10 * time.Millisecond
	defaultMaxWait     = time.Second
)

// Options configure a Plane.
type Options struct {
	// Net is the network byte of the mesh IPs, mesh.MeshNetFirst to mesh.MeshNetLast.
	Net uint8
	// StatePath is the file that keeps addresses the same over restarts; "" keeps nothing.
	StatePath string
	// Domain completes services that come without Host; "" means mesh.DefaultDomain.
	Domain string
	// DisableIPv6 leaves out all IPv6 addresses.
	DisableIPv6 bool
	// QuietPeriod is how long nothing must change before a Snapshot is
	// published; MaxWait is how long a change waits at most. 0 means 10 ms and 1 s.
	QuietPeriod, MaxWait time.Duration
	Version              string       // tag of istio_build; "" means unknown
	Log                  *slog.Logger // required
}

func (o *Options) complete() error {
	if o.Net < mesh.MeshNetFirst || o.Net > mesh.MeshNetLast {
		return fmt.Errorf("mesh network 127.%d.0.0: the second byte must be %d to %d", o.Net, mesh.MeshNetFirst, mesh.MeshNetLast)
	}
	if o.Log == nil {
		return errors.New("control plane without a logger")
	}
	if o.Domain == "" {
		o.Domain = mesh.DefaultDomain
	}
	if o.Version == "" {
		o.Version = mesh.Unknown
	}
	if o.QuietPeriod == 0 {
		o.QuietPeriod = defaultQuietPeriod
	}
	if o.MaxWait == 0 {
		o.MaxWait = defaultMaxWait
	}
	if o.QuietPeriod < 0 || o.MaxWait < o.QuietPeriod {
		return fmt.Errorf("quiet period %v and maximum wait %v: neither may be negative, and the wait not shorter", o.QuietPeriod, o.MaxWait)
	}
	return nil
}

// Plane is the control plane of one mesh. Make it with New and keep Run
// running: only Run publishes.
type Plane struct {
	opts    Options       // read-only
	metrics *planeMetrics // read-only
	wake    chan struct{} // has one element when something changed
	current atomic.Pointer[publication]
	replace func(path string, data []byte) error // durable.Replace

	saveFailed bool // of Run alone

	mu          sync.Mutex // guards everything below
	sources     map[string][]mesh.Service
	workloads   map[string]mesh.Workload
	wires       map[string]*wirePorts // by workload key
	vips        *numbers              // by host
	indexes     *numbers              // by workload key
	conflicts   map[string]string     // already reported: host to what was said
	firstChange time.Time             // oldest change not yet published; zero if none
	changes     uint64                // how many there were
}

// publication is one published Snapshot and the promise of the next one.
type publication struct {
	snapshot *mesh.Snapshot
	changes  uint64        // how many of Plane.changes are in it
	next     chan struct{} // closed when the next one is there
	views    *viewCache
}

func newPublication(s *mesh.Snapshot, changes uint64) *publication {
	return &publication{snapshot: s, changes: changes, next: make(chan struct{}), views: newViewCache(s)}
}

// New makes a Plane and reads its state file. A damaged state file is logged,
// kept aside, and does not stop the plane.
func New(o Options) (*Plane, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	p := &Plane{
		opts:      o,
		wake:      make(chan struct{}, 1),
		sources:   map[string][]mesh.Service{},
		workloads: map[string]mesh.Workload{},
		wires:     map[string]*wirePorts{},
		conflicts: map[string]string{},
		vips:      newVIPNumbers(),
		indexes:   newIndexNumbers(),
		replace:   durable.Replace,
	}
	p.metrics = newPlaneMetrics(time.Now(), o.Version, p.current.Load)
	if o.StatePath != "" {
		var err error
		p.vips, p.indexes, err = loadState(o.StatePath, newVIPNumbers, newIndexNumbers)
		if err != nil {
			p.metrics.stateErrors.Inc()
			o.Log.Error("addresses of the last run could not be read", "error", err)
		}
	}
	p.current.Store(newPublication(&mesh.Snapshot{Net: o.Net}, 0))
	return p, nil
}

func newVIPNumbers() *numbers   { return newNumbers(1, 65534) }
func newIndexNumbers() *numbers { return newNumbers(2, 65533) }

// Snapshot returns the last published Snapshot, never nil. Version 0 is empty
// and means that nothing was published yet.
func (p *Plane) Snapshot() *mesh.Snapshot { return p.current.Load().snapshot }

// Published is Snapshot, and reports whether everything is in it that the plane was
// told before the call.
func (p *Plane) Published() (s *mesh.Snapshot, whole bool) {
	p.mu.Lock()
	changes := p.changes
	p.mu.Unlock()
	pub := p.current.Load()
	return pub.snapshot, pub.changes >= changes
}

// View is View(p.Snapshot(), key), with the work shared that is the same for
// several proxies. The result is shared too and must not be changed.
func (p *Plane) View(key string) (*mesh.NodeConfig, error) { return p.current.Load().views.view(key) }

// Watch yields the current Snapshot, unless nothing was published yet, and
// then each newer one until ctx ends. A slow consumer misses the ones in
// between, never the last.
func (p *Plane) Watch(ctx context.Context) iter.Seq[*mesh.Snapshot] {
	return func(yield func(*mesh.Snapshot) bool) {
		for {
			pub := p.current.Load()
			if pub.snapshot.Version > 0 && !yield(pub.snapshot) {
				return
			}
			select {
			case <-pub.next:
			case <-ctx.Done():
				return
			}
		}
	}
}

// SetServices replaces all services of one source ("" is a valid source). VIPs
// in svcs are ignored: they are assigned here. svcs stays the caller's.
func (p *Plane) SetServices(source string, svcs []mesh.Service) {
	own := make([]mesh.Service, 0, len(svcs))
	for i := range svcs {
		own = append(own, p.ownService(&svcs[i]))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if reflect.DeepEqual(p.sources[source], own) {
		return
	}
	p.metrics.servicesChanged(p.sources[source], own)
	if len(own) == 0 {
		delete(p.sources, source)
	} else {
		p.sources[source] = own
	}
	p.changed(triggerService)
}

// SetWorkload adds or replaces one workload. Addresses that it lacks are given
// out as Index would; an address that it brings (adopted after a restart) is
// claimed for it. w stays the caller's.
func (p *Plane) SetWorkload(w mesh.Workload) {
	w = w.Clone()
	if w.Cluster == "" {
		w.Cluster = mesh.DefaultCluster
	}
	key := w.Key()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.address(&w); err != nil {
		p.opts.Log.Error("workload left out", "workload", key, "error", err)
		return
	}
	old, known := p.workloads[key]
	if known && reflect.DeepEqual(old, w) {
		return
	}
	p.workloads[key] = w
	switch {
	case !known:
		p.metrics.happened(objectWorkload, eventAdd)
	case onlyReadiness(&old, &w):
		p.metrics.happened(objectEndpoints, eventUpdate)
		p.changed(triggerEndpoint)
		return
	default:
		p.metrics.happened(objectWorkload, eventUpdate)
	}
	p.changed(triggerWorkload)
}

// RemoveWorkload removes a workload; its address stays reserved until Release.
func (p *Plane) RemoveWorkload(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.workloads[key]; !ok {
		return
	}
	delete(p.workloads, key)
	delete(p.wires, key)
	p.metrics.happened(objectWorkload, eventDelete)
	p.changed(triggerWorkload)
}

// Index gives the workload named key (namespace/name) its number: the same as
// before if it had one, otherwise the one that has been free the longest. It
// fails only when all numbers are held.
func (p *Plane) Index(key string) (mesh.Index, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	num, ok := p.indexes.take(key)
	if !ok {
		return 0, fmt.Errorf("address for workload %s: all %d addresses of the mesh are in use; stop some workloads", key, len(p.indexes.byNum))
	}
	p.poke()
	return mesh.Index(num), nil
}

// Claim makes num the number of the workload named key, which runs and has it
// already: what the state file says of it, if there still is one, counts less. It
// fails if another workload holds the number.
func (p *Plane) Claim(key string, num mesh.Index) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.indexes.byNum[uint16(num)]; e != nil && e.key != key && e.idle == nil {
		return fmt.Errorf("address %s of workload %s: workload %s has it", mesh.IP(p.opts.Net, num), key, e.key)
	}
	p.indexes.claim(key, uint16(num))
	p.poke()
	return nil
}

// Release gives key's number back. It stays key's until the numbers run short.
func (p *Plane) Release(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.indexes.release(key)
	p.poke()
}

// changed notes a change to publish. p.mu is held.
func (p *Plane) changed(t trigger) {
	p.metrics.pushed(t)
	p.changes++
	if p.firstChange.IsZero() {
		p.firstChange = time.Now()
	}
	p.poke()
}

func (p *Plane) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run publishes changes until ctx ends, and then saves the state once more.
func (p *Plane) Run(ctx context.Context) error {
	quiet := time.NewTimer(p.opts.QuietPeriod)
	defer quiet.Stop()
	for {
		select {
		case <-p.wake:
			if !p.overdue() {
				quiet.Reset(p.opts.QuietPeriod)
				continue
			}
		case <-quiet.C:
		case <-ctx.Done():
			p.mu.Lock()
			state := p.unsaved()
			p.mu.Unlock()
			p.save(state)
			return nil
		}
		p.publish()
	}
}

// overdue reports whether a change has waited long enough, however restless
// things are.
func (p *Plane) overdue() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.firstChange.IsZero() && time.Since(p.firstChange) >= p.opts.MaxWait
}

// publish makes the next Snapshot if anything changed, after saving the
// addresses in it. The disk may take its time: nobody waits for it but the
// Snapshot. Only Run calls it.
func (p *Plane) publish() {
	p.mu.Lock()
	since := p.firstChange
	old := p.current.Load()
	next := &mesh.Snapshot{Version: old.snapshot.Version + 1, Net: p.opts.Net}
	if !since.IsZero() {
		next.Services = p.mergeServices()
		next.Workloads = p.mergeWorkloads(next.Services)
		p.firstChange = time.Time{}
	}
	changes := p.changes
	state := p.unsaved()
	p.mu.Unlock()
	p.save(state)
	if since.IsZero() {
		return
	}
	p.metrics.published(len(next.Services), time.Since(since))
	p.current.Store(newPublication(next, changes))
	close(old.next)
}

// savable is a content for the state file, or why there is none; the zero value
// if the file has it already.
type savable struct {
	data []byte
	err  error
}

// unsaved takes what is to be written to the state file. p.mu is held.
func (p *Plane) unsaved() savable {
	if p.opts.StatePath == "" || (!p.vips.changed && !p.indexes.changed) {
		return savable{}
	}
	p.vips.changed, p.indexes.changed = false, false
	data, err := encodeState(p.vips, p.indexes)
	return savable{data, err}
}

// save writes the state file. A failure is said once and tried again with the
// next change: the mesh goes on without. Only Run calls it, without p.mu.
func (p *Plane) save(state savable) {
	if state.data == nil && state.err == nil {
		return
	}
	err := state.err
	if err == nil {
		err = p.replace(p.opts.StatePath, state.data)
	}
	if err != nil {
		p.metrics.stateErrors.Inc()
		if !p.saveFailed {
			p.opts.Log.Error("addresses are not saved, they may change with the next start: check space and permissions", "error", err)
		}
		p.saveFailed = true
		p.mu.Lock()
		p.vips.changed, p.indexes.changed = true, true
		p.mu.Unlock()
		return
	}
	if p.saveFailed {
		p.opts.Log.Info("addresses are saved again")
	}
	p.saveFailed = false
}
