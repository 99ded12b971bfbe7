package metricstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
	"golang.org/x/sys/unix"
)

const (
	// diskCheckInterval is the pause between two looks at the free space.
	diskCheckInterval = time.Second
	// headBytesPerSeries is kept free for each series in memory: one full chunk
	// of 120 samples, which the database writes to disk with a delay. It
	// panics when it cannot.
	headBytesPerSeries = 512
)

// errNoSpace is what scrapes and rules get while the disk is nearly full.
var errNoSpace = errors.New("not enough free disk space")

// guardedStorage appends to the storage behind it, unless it is told to refuse.
type guardedStorage struct {
	next    storage.Storage
	reason  atomic.Pointer[string]
	refused prometheus.Counter
	turns   turns
}

var (
	_ storage.Appendable   = (*guardedStorage)(nil)
	_ storage.AppendableV2 = (*guardedStorage)(nil)
)

func newGuardedStorage(next storage.Storage, reg prometheus.Registerer) *guardedStorage {
	g := &guardedStorage{next: next, refused: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "vitrine_metricstore_samples_refused_total",
		Help: "Samples that were not stored because too little disk space was free.",
	})}
	full := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "vitrine_metricstore_degraded",
		Help: "1 while samples are not stored because too little disk space is free.",
	}, func() float64 {
		if g.refusal() != "" {
			return 1
		}
		return 0
	})
	reg.MustRegister(g.refused, full)
	return g
}

// refusal says why samples are refused; "" if they are not.
func (g *guardedStorage) refusal() string {
	if r := g.reason.Load(); r != nil {
		return *r
	}
	return ""
}

// Appender implements storage.Appendable.
func (g *guardedStorage) Appender(ctx context.Context) storage.Appender {
	if g.refusal() != "" {
		return refuser{g}
	}
	return g.next.Appender(ctx)
}

// AppenderV2 implements storage.AppendableV2.
func (g *guardedStorage) AppenderV2(ctx context.Context) storage.AppenderV2 {
	return &sharedAppender{AppenderV2: g.appenderV2(ctx), turns: &g.turns}
}

func (g *guardedStorage) appenderV2(ctx context.Context) storage.AppenderV2 {
	if g.refusal() != "" {
		return refuserV2{refuser{g}}
	}
	return g.next.AppenderV2(ctx)
}

// onceTold drops what is logged of each refused sample, twice a round for every
// target: checkDisk tells the one cause.
type onceTold struct{ slog.Handler }

func (h onceTold) Handle(ctx context.Context, r slog.Record) error {
	refused := false
	r.Attrs(func(a slog.Attr) bool {
		err, ok := a.Value.Any().(error)
		refused = ok && errors.Is(err, errNoSpace)
		return !refused
	})
	if refused {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h onceTold) WithAttrs(attrs []slog.Attr) slog.Handler {
	return onceTold{h.Handler.WithAttrs(attrs)}
}

func (h onceTold) WithGroup(name string) slog.Handler { return onceTold{h.Handler.WithGroup(name)} }

// watchDisk refuses samples while too little space is free.
func (s *Store) watchDisk(ctx context.Context) {
	tick := time.NewTicker(diskCheckInterval)
	defer tick.Stop()
	for {
		s.checkDisk()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *Store) checkDisk() {
	var st unix.Statfs_t
	if err := unix.Statfs(s.opts.Dir, &st); err != nil {
		s.opts.Log.Warn("free disk space unknown", "dir", s.opts.Dir, "error", err)
		return
	}
	free := int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert // the types differ between architectures
	need := s.opts.MinFreeBytes + int64(s.db.Head().NumSeries())*headBytesPerSeries
	was := s.writable.refusal() != ""
	switch {
	case free < need && !was:
		reason := fmt.Sprintf("metrics are not being stored: %d MiB free in %s, %d MiB needed; free some space",
			free>>20, s.opts.Dir, need>>20)
		s.writable.reason.Store(&reason)
		s.opts.Log.Error("metrics not stored any more: disk nearly full", "dir", s.opts.Dir, "free_bytes", free, "needed_bytes", need)
	// Some slack, so that the samples of one round do not bring it back at once.
	case was && free >= need+need/8:
		s.writable.reason.Store(nil)
		s.opts.Log.Info("metrics are stored again", "dir", s.opts.Dir, "free_bytes", free)
	}
}

// refuser is an appender that stores nothing.
type refuser struct{ g *guardedStorage }

var _ storage.Appender = refuser{}

func (r refuser) refuse() (storage.SeriesRef, error) {
	r.g.refused.Inc()
	return 0, errNoSpace
}

func (r refuser) Append(storage.SeriesRef, labels.Labels, int64, float64) (storage.SeriesRef, error) {
	return r.refuse()
}

func (r refuser) AppendExemplar(storage.SeriesRef, labels.Labels, exemplar.Exemplar) (storage.SeriesRef, error) {
	return r.refuse()
}

func (r refuser) AppendHistogram(storage.SeriesRef, labels.Labels, int64, *histogram.Histogram, *histogram.FloatHistogram) (storage.SeriesRef, error) {
	return r.refuse()
}

func (r refuser) AppendHistogramSTZeroSample(storage.SeriesRef, labels.Labels, int64, int64, *histogram.Histogram, *histogram.FloatHistogram) (storage.SeriesRef, error) {
	return r.refuse()
}

func (r refuser) AppendSTZeroSample(storage.SeriesRef, labels.Labels, int64, int64) (storage.SeriesRef, error) {
	return r.refuse()
}

func (r refuser) UpdateMetadata(storage.SeriesRef, labels.Labels, metadata.Metadata) (storage.SeriesRef, error) {
	return r.refuse()
}

func (refuser) SetOptions(*storage.AppendOptions) {}

func (refuser) Commit() error { return errNoSpace }

func (refuser) Rollback() error { return nil }

// refuserV2 is a refuser for the second form of the append interface.
type refuserV2 struct{ refuser }

var _ storage.AppenderV2 = refuserV2{}

func (r refuserV2) Append(storage.SeriesRef, labels.Labels, int64, int64, float64, *histogram.Histogram, *histogram.FloatHistogram, storage.AppendV2Options) (storage.SeriesRef, error) {
	return r.refuse()
}
