package metricstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
// show, and returns how many. Nothing else is appended any more.
func (s *Store) endSeries(ctx context.Context) (ended int, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("mark series as ended: %w", err)
		}
	}()
	now := time.Now()
	// Without an end: a clock that was set back leaves samples of a later time.
	q, err := s.db.Querier(now.Add(-lookbackDelta).UnixMilli(), math.MaxInt64)
	if err != nil {
		return 0, err
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
			return 0, errors.Join(err, app.Rollback())
		}
		if err == nil {
			ended++
		}
	}
	if err := set.Err(); err != nil {
		return 0, errors.Join(err, app.Rollback())
	}
	return ended, app.Commit()
}

// finish appends what is to be the last and waits until remote write has read it:
// closing sends on what was read, and drops what was not.
func (s *Store) finish(ctx context.Context) {
	remote := len(s.opts.RemoteWrite) > 0
	var before map[string]float64
	if remote {
		before = s.remoteRecords()
	}
	ended := 0
	if s.ends.Load() {
		var err error
		if ended, err = s.endSeries(ctx); err != nil { // a full disk: nothing that its owner must be told now
			s.opts.Log.Warn("series stay open", "error", err)
		}
	}
	if remote {
		s.awaitRemote(before, ended > 0)
	}
}

// Times of awaitRemote.
const (
	remoteQuiet = 250 * time.Millisecond // without another record read, all were
	remoteWait  = 5 * time.Second
)

// awaitRemote waits until each remote write has read another record than before, if
// there is one, and then no more. Its log is read by others at their own pace, and
// who reads it tells only how many records it has read.
func (s *Store) awaitRemote(before map[string]float64, more bool) {
	tick := time.NewTicker(remoteQuiet / 10)
	defer tick.Stop()
	began := time.Now()
	read, since := before, began
	for now := range tick.C {
		s.remote.Notify() // who was about to rest missed what it was told before
		if n := s.remoteRecords(); !maps.Equal(n, read) {
			read, since = n, now
		}
		behind := false
		for consumer, n := range read {
			behind = behind || more && n <= before[consumer]
		}
		if !behind && now.Sub(since) > remoteQuiet || now.Sub(began) > remoteWait {
			return
		}
	}
}

// remoteRecords is how many records of the write-ahead log each remote write has
// read.
func (s *Store) remoteRecords() map[string]float64 {
	read := map[string]float64{}
	families, err := s.registry.Gather()
	if err != nil {
		return read // of a collector of ours: nothing changes, and waiting ends
	}
	for _, f := range families {
		if f.GetName() != "prometheus_wal_watcher_records_read_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "consumer" {
					read[l.GetValue()] += m.GetCounter().GetValue()
				}
			}
		}
	}
	return read
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
