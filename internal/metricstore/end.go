package metricstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// EndSeries makes Run, when it ends, mark every series as ended at that moment.
// Who ends for good what is scraped says so: a Prometheus that is only restarted
// leaves its series open, and shows what is no longer there for five minutes.
func (s *Store) EndSeries() { s.ends.Store(true) }

// endSeries writes a staleness marker for each series that an instant query would
// show. Nothing else is appended any more.
func (s *Store) endSeries(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("mark series as ended: %w", err)
		}
	}()
	now := time.Now()
	// Without an end: a clock that was set back leaves samples of a later time.
	q, err := s.db.Querier(now.Add(-lookbackDelta).UnixMilli(), math.MaxInt64)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	app := s.writable.AppenderV2(ctx)
	set := q.Select(ctx, false, nil, labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".+"))
	var it chunkenc.Iterator
	for set.Next() {
		series := set.At()
		it = series.Iterator(it)
		last, open := lastSample(it)
		if !open {
			continue
		}
		at := max(now.UnixMilli(), last+1)
		_, err := app.Append(0, series.Labels(), 0, at, math.Float64frombits(value.StaleNaN), nil, nil, storage.AppendV2Options{})
		if err != nil && !overtaken(err) {
			return errors.Join(err, app.Rollback())
		}
	}
	if err := set.Err(); err != nil {
		return errors.Join(err, app.Rollback())
	}
	return app.Commit()
}

// Times of awaitRemote.
const (
	remoteQuiet = 250 * time.Millisecond // without another record read, all were
	remoteWait  = 3 * time.Second
)

// awaitRemote waits until remote write has read what was appended last; closing
// sends on what was read, and drops what was not.
func (s *Store) awaitRemote() {
	if len(s.opts.RemoteWrite) == 0 {
		return
	}
	s.remote.Notify()
	tick := time.NewTicker(remoteQuiet / 10)
	defer tick.Stop()
	began := time.Now()
	read, since := s.remoteRecords(), began
	for now := range tick.C {
		if n := s.remoteRecords(); n != read {
			read, since = n, now
		}
		if now.Sub(since) > remoteQuiet || now.Sub(began) > remoteWait {
			return
		}
	}
}

// remoteRecords is how many records of the write-ahead log were read for remote
// write.
func (s *Store) remoteRecords() float64 {
	families, err := s.registry.Gather()
	if err != nil {
		return 0 // of a collector of ours: nothing changes, and waiting ends
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == "prometheus_wal_watcher_records_read_total" {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// lastSample is the time of a series' last sample, and whether it is none that
// marks an end.
func lastSample(it chunkenc.Iterator) (at int64, open bool) {
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		at, open = it.AtT(), true
		if kind == chunkenc.ValFloat {
			_, v := it.At()
			open = !value.IsStaleNaN(v)
		}
	}
	return at, open
}
