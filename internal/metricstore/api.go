package metricstore

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/notifications"
	api "github.com/prometheus/prometheus/web/api/v1"
)

// newAPI wires Prometheus's own implementation of /api/v1. The constructor
// takes some forty positional arguments and changes with each version of
// Prometheus: everything that depends on it is in this file.
func (s *Store) newAPI() http.Handler {
	ext, _ := url.Parse(s.opts.ExternalURL) // validated
	v1 := api.NewAPI(
		s.engine,
		s.db,
		nil, nil, // nothing is written through the API
		s.db,
		func(context.Context) api.ScrapePoolsRetriever { return s.scraper },
		func(context.Context) api.TargetRetriever { return s.scraper },
		func(context.Context) api.AlertmanagerRetriever { return noAlertmanagers{} },
		func() config.Config { return *s.config.Load() },
		s.flags(),
		api.GlobalURLOptions{ListenAddress: ext.Host, Host: ext.Host, Scheme: ext.Scheme},
		s.whenReady,
		adminStats{s.db, s.stats},
		s.opts.Dir,
		false,    // no deleting, no snapshots
		false, 0, // no search API
		s.opts.Log.With("component", "api"),
		func(context.Context) api.RulesRetriever { return s.rules },
		5_000_000, 10, 1<<20, // remote read: samples, concurrency, frame bytes (Prometheus: 5e7, 10, 1 MiB)
		false,
		// No page of another origin may read from here: the API listens on
		// loopback, where every web site could reach it through a browser.
		regexp.MustCompile("^$"),
		s.runtimeInfo,
		&api.PrometheusVersion{Version: cmp.Or(engineVersion(), s.opts.Version), Revision: s.opts.Version, GoVersion: runtime.Version()},
		func() []notifications.Notification { return []notifications.Notification{} },
		func() (<-chan notifications.Notification, func(), bool) { return nil, nil, false },
		s.registry,
		s.registry,
		nil,
		false, nil, // no remote-write receiver
		false, false, false, // no OTLP receiver
		true, // created timestamps become zero samples
		lookbackDelta,
		false,
		false,
		nil,
		s.features,
		api.OpenAPIOptions{ExternalURL: s.opts.ExternalURL, Version: s.opts.Version},
		newParser(),
	)
	r := route.New()
	v1.Register(r)
	return r
}

// flags answers /api/v1/status/flags with the names of Prometheus's own flags,
// some of which clients look for.
func (s *Store) flags() map[string]string {
	o := s.opts
	return map[string]string{
		"storage.tsdb.path":           o.Dir,
		"storage.tsdb.retention.time": model.Duration(o.RetentionTime).String(),
		"storage.tsdb.retention.size": fmt.Sprintf("%dB", o.RetentionBytes),
		"query.timeout":               model.Duration(o.Limits.Timeout).String(),
		"query.max-samples":           strconv.Itoa(o.Limits.MaxSamples),
		"query.max-concurrency":       strconv.Itoa(o.Limits.Concurrency),
		"query.lookback-delta":        model.Duration(lookbackDelta).String(),
		"web.external-url":            o.ExternalURL,
		"web.enable-admin-api":        "false",
		"web.enable-lifecycle":        "false",
	}
}

func (s *Store) runtimeInfo() (api.RuntimeInfo, error) {
	host, err := os.Hostname()
	if err != nil {
		return api.RuntimeInfo{}, fmt.Errorf("host name: %w", err)
	}
	cwd, err := os.Getwd()
	if err != nil {
		cwd = "" // the directory was removed; not worth an error
	}
	info := api.RuntimeInfo{
		StartTime:           s.started,
		CWD:                 cwd,
		Hostname:            host,
		ServerTime:          time.Now().UTC(),
		ReloadConfigSuccess: true,
		LastConfigTime:      s.started,
		CorruptionCount:     int64(len(s.damage)),
		GoroutineCount:      runtime.NumGoroutine(),
		GOMAXPROCS:          runtime.GOMAXPROCS(0),
		GOMEMLIMIT:          debug.SetMemoryLimit(-1),
		GOGC:                os.Getenv("GOGC"),
		GODEBUG:             os.Getenv("GODEBUG"),
		StorageRetention:    model.Duration(s.opts.RetentionTime).String(),
	}
	if n := s.opts.RetentionBytes; n > 0 {
		info.StorageRetention += fmt.Sprintf(" or %dB", n)
	}
	return info, nil
}

// whenReady answers 503 until Run has begun and after it has ended.
func (s *Store) whenReady(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.Ready() {
			http.Error(w, "the metric store is not running", http.StatusServiceUnavailable)
			return
		}
		next(w, r)
	}
}

// adminStats gives the API what it wants to know of the database.
type adminStats struct {
	db    *tsdb.DB
	stats *tsdb.DBStats
}

func (a adminStats) CleanTombstones() error { return a.db.CleanTombstones() }

func (a adminStats) Delete(ctx context.Context, mint, maxt int64, ms ...*labels.Matcher) error {
	return a.db.Delete(ctx, mint, maxt, ms...)
}

func (a adminStats) Snapshot(dir string, withHead bool) error { return a.db.Snapshot(dir, withHead) }

func (a adminStats) Stats(label string, limit int) (*tsdb.Stats, error) {
	return a.db.Head().Stats(label, limit), nil
}

func (a adminStats) WALReplayStatus() (tsdb.WALReplayStatus, error) {
	return a.stats.Head.WALReplayStatus.GetWALReplayStatus(), nil
}

func (a adminStats) BlockMetas() ([]tsdb.BlockMeta, error) { return a.db.BlockMetas(), nil }

// noAlertmanagers answers /api/v1/alertmanagers: alerts are handed to
// Options.Notify, not sent anywhere by the store itself.
type noAlertmanagers struct{}

func (noAlertmanagers) Alertmanagers() []*url.URL { return nil }

func (noAlertmanagers) DroppedAlertmanagers() []*url.URL { return nil }
