package metricstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/util/features"
)

// targetDelay is how long a change of the targets may take to have effect.
const targetDelay = 100 * time.Millisecond

// Store is an embedded Prometheus. See the package comment.
type Store struct {
	// Read-only after Open.
	opts     Options
	started  time.Time
	registry *prometheus.Registry
	features features.Collector
	lock     *tsdbutil.DirLocker
	db       *tsdb.DB
	stats    *tsdb.DBStats
	damage   []string
	engine   *promql.Engine
	remote   *remote.Storage
	writable *guardedStorage // what scrapes and rules append to
	scraper  *scrape.Manager
	rules    *rules.Manager
	handler  http.Handler

	config atomic.Pointer[config.Config]
	state  atomic.Int32
	ends   atomic.Bool // series end with Run

	mu      sync.Mutex
	targets map[string][]Target // by job
	changed chan struct{}       // capacity 1: targets differs from what the scraper has

	closing  sync.Once
	closeErr error
}

// States of a Store.
const (
	stateOpen int32 = iota
	stateRunning
	stateEnded
)

// Open opens the store in o.Dir and replays what was written there. Damaged
// parts are put aside and reported (Damage); only options that make no sense, a
// directory that another process uses, and one that cannot be written are
// errors. From Open on the database compacts its blocks in the background; call
// Run or Close to end that.
func Open(o Options) (*Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Store{
		opts: o, started: time.Now().UTC(), features: features.NewRegistry(),
		targets: map[string][]Target{}, changed: make(chan struct{}, 1),
	}
	cfg, err := buildConfig(o, nil)
	if err != nil {
		return nil, err
	}
	s.config.Store(cfg)
	if err := rules.ParseFiles(o.RuleFiles, model.UTF8Validation, newParser(), o.Log); err != nil {
		return nil, fmt.Errorf("%w: %w", errOptions, err)
	}
	if err := s.openDB(); err != nil {
		return nil, err
	}
	if err := s.assemble(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// assemble makes everything that works on the open database.
func (s *Store) assemble() error {
	log := s.opts.Log
	opts := engineOpts(s.opts, s.registry, s.features)
	s.engine = promql.NewEngine(opts)

	s.remote = remote.NewStorage(log.With("component", "remote_write"), s.registry, s.db.StartTime, s.opts.Dir,
		10*time.Second, scraperRef{s}, false)
	if err := s.remote.ApplyConfig(s.config.Load()); err != nil {
		return fmt.Errorf("%w: remote write: %w", errOptions, err)
	}
	if len(s.opts.RemoteWrite) > 0 {
		s.db.SetWriteNotified(s.remote)
	}
	s.writable = newGuardedStorage(storage.NewFanout(log, s.db, s.remote), s.registry)

	var err error
	s.scraper, err = scrape.NewManager(&scrape.Options{
		DiscoveryReloadInterval:           model.Duration(targetDelay),
		DiscoveryReloadOnStartup:          true,
		EnableStartTimestampZeroIngestion: true,
		ParseST:                           true,
		FeatureRegistry:                   s.features,
	}, slog.New(onceTold{log.Handler()}).With("component", "scrape"), nil, nil, s.writable, s.registry)
	if err != nil {
		return fmt.Errorf("make scrape manager: %w", err)
	}
	s.rules = s.newRuleManager(opts.Parser)
	s.handler = s.newHandler()
	return nil
}

// Run scrapes, evaluates rules and sends on samples until ctx ends; then it
// closes the store. It can be called once.
func (s *Store) Run(ctx context.Context) error {
	if !s.state.CompareAndSwap(stateOpen, stateRunning) {
		return errors.New("run metric store: it was run or closed before")
	}
	defer s.state.Store(stateEnded)
	inner, cancel := context.WithCancel(ctx)
	defer cancel()

	var wg sync.WaitGroup
	groups := make(chan map[string][]*targetgroup.Group)
	var scrapeErr error
	wg.Go(func() { scrapeErr = s.scraper.Run(groups) })
	wg.Go(func() { s.forwardTargets(inner, groups) })
	wg.Go(func() { s.watchDisk(inner) })
	rulesErr := s.rules.Update(s.opts.EvaluationInterval, s.opts.RuleFiles, s.config.Load().GlobalConfig.ExternalLabels, s.opts.ExternalURL, nil)
	if rulesErr != nil {
		cancel() // the files changed since Open
	}
	wg.Go(s.rules.Run)

	<-inner.Done()
	s.rules.Stop()
	s.state.Store(stateEnded)
	wg.Wait() // forwardTargets stops the scraper
	s.finish(context.WithoutCancel(ctx))
	if err := errors.Join(scrapeErr, rulesErr, s.Close()); err != nil {
		return fmt.Errorf("run metric store: %w", err)
	}
	return nil
}

// Ready reports whether Run is at work.
func (s *Store) Ready() bool { return s.state.Load() == stateRunning }

// Damage tells, in sentences, what could not be read when the store was
// opened and was left out.
func (s *Store) Damage() []string { return append([]string(nil), s.damage...) }

// Degraded tells why samples are not being stored at present; "" if they are.
func (s *Store) Degraded() string { return s.writable.refusal() }

// Handler answers Prometheus's HTTP API below /api/v1, /-/healthy, /-/ready,
// /metrics, and a page of targets for people.
func (s *Store) Handler() http.Handler { return s.handler }

// Close closes the database of a Store that is not run. It is called by Run
// itself, and may be called more than once.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.state.Store(stateEnded)
		var errs []error
		if s.remote != nil {
			errs = append(errs, s.remote.Close())
		}
		if s.engine != nil {
			errs = append(errs, s.engine.Close())
		}
		errs = append(errs, s.db.Close(), s.lock.Release())
		s.closeErr = errors.Join(errs...)
	})
	return s.closeErr
}

// scraperRef lets remote write find the scrape manager, which is made later.
type scraperRef struct{ s *Store }

// Get implements remote.ReadyScrapeManager.
func (r scraperRef) Get() (*scrape.Manager, error) {
	if !r.s.Ready() {
		return nil, errors.New("scrape manager not ready")
	}
	return r.s.scraper, nil
}
