package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// Options make a Supervisor.
type Options struct {
	RunDir        string // holds pods/NS/NAME, gone at reboot
	DataDir       string // holds logs/NS/NAME and pods/NS/NAME, kept
	ProxyBinary   string // absolute path of vitrine-proxy
	Net           uint8  // network byte of the mesh IPs
	XDSSocket     string // told to the pods
	ControlSocket string // told to the pods
	AccessLog     bool   // told to the pods
	// EvictAfter is told to the pods (pod.Bootstrap.EvictAfter).
	EvictAfter time.Duration
	// Index gives the workload with a Key its address number, the same again
	// for the same key. Claim is for a workload that runs and has a number; it
	// fails if another one has it. Release gives the number back when the
	// workload is gone.
	Index   func(key string) (mesh.Index, error)
	Claim   func(key string, number mesh.Index) error
	Release func(key string)
	// Unlisted returns when all proxies have learned that the workload with a Key
	// is not ready, or at the end of ctx, with an error that says who has not. It
	// may be nil. It is called from several goroutines at once.
	Unlisted func(ctx context.Context, key string) error
	// UnlistedTime bounds how long a pod that is to stop is kept for Unlisted.
	// Default 3 s.
	UnlistedTime time.Duration
	Hooks        Hooks
	// Output is called with each line that programs write (without the line
	// feed), in order for each container. It may be nil.
	Output func(pod, container string, line []byte)
	Log    *slog.Logger
}

func (o *Options) validate() error {
	var errs []error
	for name, path := range map[string]string{
		"run directory": o.RunDir, "data directory": o.DataDir, "proxy binary": o.ProxyBinary,
		"xds socket": o.XDSSocket, "control socket": o.ControlSocket,
	} {
		if !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("%s %q must be an absolute path", name, path))
		}
	}
	if o.Index == nil || o.Claim == nil || o.Release == nil || o.Log == nil {
		errs = append(errs, errors.New("index, Claim, Release and Log are needed"))
	}
	if o.Net < mesh.MeshNetFirst || o.Net > mesh.MeshNetLast {
		errs = append(errs, fmt.Errorf("network %d must be %d to %d", o.Net, mesh.MeshNetFirst, mesh.MeshNetLast))
	}
	if o.UnlistedTime < 0 {
		errs = append(errs, fmt.Errorf("unlisted time %s must not be negative", o.UnlistedTime))
	}
	return errors.Join(errs...)
}

// Supervisor keeps pods running as declared.
type Supervisor struct {
	o    Options
	ipv6 bool
	kick chan struct{} // capacity 1: something changed
	// surveyed is closed when Run knows the pods that were running before it.
	surveyed chan struct{}
	ended    chan struct{} // closed when Run has returned

	cpu cpuCounters

	hooksMu sync.Mutex // held while hooks run; before mu

	mu       sync.Mutex // guards the rest
	sets     map[SetName]*wanted
	applied  bool                // Apply was called, so what is not wanted may be stopped
	down     bool                // Stop was called
	pods     map[string]*keptPod // by workload key
	pending  []func()            // hook calls in order of their events
	launched []*keptPod          // created, not yet started by Run
	removed  chan struct{}       // closed and replaced when there is a pod less
}

// SetName names a workload set.
type SetName struct {
	Kind            mesh.WorkloadKind
	Namespace, Name string
}

func keyOf(s *mesh.WorkloadSet) SetName { return SetName{s.Kind, s.Namespace, s.Name} }

// wanted is a set that was applied.
type wanted struct {
	set         mesh.WorkloadSet
	restartedAt string
	hash        string
	trouble     trouble // of making a pod for it; zero if the last try went well
}

// New checks the options. Nothing runs before Run.
func New(o Options) (*Supervisor, error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("local: %w", err)
	}
	_, err := os.Stat("/proc/net/if_inet6") // absent when IPv6 is off
	return &Supervisor{
		o: o, ipv6: err == nil,
		kick:     make(chan struct{}, 1),
		surveyed: make(chan struct{}),
		ended:    make(chan struct{}),
		sets:     map[SetName]*wanted{},
		pods:     map[string]*keptPod{},
		removed:  make(chan struct{}),
	}, nil
}

// Run adopts the pods that still run, keeps everything as declared, and returns
// nil at the end of ctx, leaving the pods running. It is called once.
func (s *Supervisor) Run(ctx context.Context) error {
	defer close(s.ended)
	ctx, cancel := context.WithCancel(ctx)
	var keepers sync.WaitGroup
	defer keepers.Wait()
	defer cancel()
	if err := s.adopt(ctx); err != nil {
		return fmt.Errorf("look for running pods: %w", err)
	}
	s.resume()
	close(s.surveyed)
	keepers.Go(func() { s.copyOutput(ctx) })
	for {
		again := s.reconcile(ctx)
		s.runHooks()
		for _, p := range s.takeLaunched() {
			keepers.Go(func() { s.keep(ctx, p) })
		}
		timer := time.NewTimer(again)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-s.kick:
			timer.Stop()
		}
	}
}

// Apply declares all sets that are wanted, in place of those declared before.
// Pods of programs added by Prepare are not affected. The work is done by Run.
func (s *Supervisor) Apply(sets []mesh.WorkloadSet) error {
	var errs []error
	next := map[SetName]*wanted{}
	for i := range sets {
		set := sets[i]
		k := keyOf(&set)
		if next[k] != nil {
			errs = append(errs, fmt.Errorf("%s %s/%s is declared twice: %s", set.Kind, set.Namespace, set.Name, set.Source))
		}
		if set.Kind == mesh.KindProgram {
			errs = append(errs, fmt.Errorf("%s/%s: programs are added by vitrine run", set.Namespace, set.Name))
		}
		if _, err := portsOf(&set); err != nil {
			errs = append(errs, err)
		}
		next[k] = &wanted{set: set}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("apply workloads: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, w := range next {
		if old := s.sets[k]; old != nil {
			w.restartedAt = old.restartedAt
		} else {
			w.restartedAt = s.restartedAt(k)
		}
		w.hash = templateHash(&w.set, w.restartedAt)
	}
	s.sets, s.applied = next, true
	s.wake()
	return nil
}

// resume makes what was declared before the running pods were known agree with
// the restarts that they were made for.
func (s *Supervisor) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, w := range s.sets {
		w.restartedAt = max(w.restartedAt, s.restartedAt(k))
		w.hash = templateHash(&w.set, w.restartedAt)
	}
}

// restartedAt is the latest restart that a set's running pods were made for, so
// that a new control plane does not undo it.
func (s *Supervisor) restartedAt(k SetName) string {
	latest := ""
	for _, p := range s.pods {
		if keyOf(&p.boot.Set) == k {
			latest = max(latest, p.boot.RestartedAt) // RFC 3339 in UTC sorts
		}
	}
	return latest
}

// wake makes Run look again.
func (s *Supervisor) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// idle is how long Run waits when only events matter.
const idle = time.Hour

// reconcile takes the next step for every set and returns when to look again.
func (s *Supervisor) reconcile(ctx context.Context) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		for _, p := range s.pods {
			p.stop(false)
		}
		return idle
	}
	if !s.applied {
		return idle
	}
	now := time.Now()
	again := idle
	bySet, unwanted := s.census()
	for _, p := range unwanted {
		p.stop(true)
	}
	for k, w := range s.sets {
		d := plan(&w.set, w.hash, bySet[k], now)
		for _, key := range d.stop {
			s.pods[key].stop(true)
		}
		for _, key := range d.giveUp {
			s.pods[key].giveUp()
		}
		for _, wait := range []time.Duration{d.again, s.makePods(ctx, w, d.start, now)} {
			if wait > 0 {
				again = min(again, wait)
			}
		}
	}
	return again
}

// census sorts the pods by set; those of sets that are not wanted come apart.
// s.mu is held.
func (s *Supervisor) census() (bySet map[SetName][]replica, unwanted []*keptPod) {
	bySet = map[SetName][]replica{}
	for _, p := range s.pods {
		k := keyOf(&p.boot.Set)
		if k.Kind != mesh.KindProgram && s.sets[k] == nil {
			unwanted = append(unwanted, p)
			continue
		}
		bySet[k] = append(bySet[k], p.replica())
	}
	return bySet, unwanted
}

func (s *Supervisor) runDir(key string) string { return filepath.Join(s.o.RunDir, "pods", key) }

func (s *Supervisor) takeLaunched() []*keptPod {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.launched
	s.launched = nil
	return l
}
