package metricstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
)

// AppendFinal stores the last exposition of a target of a job that ends, as a
// scrape at this moment would have, and marks its series as ended right after.
// So what the target counted since it was scraped last is not lost: increase()
// over any window that contains this moment sees it, while instant queries no
// longer show the series.
//
// Counters fall to zero before they end: a successor with the same labels, which
// may have counted more than its predecessor when it is scraped first, is then
// counted from zero whatever creation time it names.
//
// The exposition is in the format of contentType: Prometheus text, OpenMetrics
// text or protobuf (delimited). Call it while the target is still set or after
// it was removed, but not while it still counts. An error means that nothing
// was stored.
func (s *Store) AppendFinal(ctx context.Context, job string, t Target, contentType string, exposition []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("store last metrics of %s: %w", t.Address, err)
		}
	}()
	if len(exposition) == 0 {
		return nil
	}
	target, err := s.scrapeLabels(job, t)
	if err != nil {
		return err
	}
	// The target may be scraped at the same time. Samples of that scrape, whose
	// times Prometheus moves by some milliseconds, must not stand in the way.
	now := time.Now().UnixMilli()
	for range finalAttempts {
		if err = s.tryFinal(ctx, target, contentType, exposition, now); !overtaken(err) {
			return err
		}
		now = max(now+finalStep, time.Now().UnixMilli())
	}
	return err
}

// A final exposition that was overtaken by scrapes is stored a little later,
// in milliseconds, so many times.
const (
	finalStep     = 5
	finalAttempts = 20
)

// overtaken says that newer samples, or others of the same time, are stored.
func overtaken(err error) bool {
	return errors.Is(err, storage.ErrOutOfOrderSample) || errors.Is(err, storage.ErrDuplicateSampleForTimestamp)
}

func (s *Store) tryFinal(ctx context.Context, target labels.Labels, contentType string, exposition []byte, now int64) error {
	parser, err := textparse.New(exposition, contentType, labels.NewSymbolTable(), textparse.ParserOptions{
		IgnoreNativeHistograms:  true,
		OpenMetricsSkipSTSeries: true,
	})
	if parser == nil {
		return fmt.Errorf("content type %q: %w", contentType, err)
	}
	return s.writable.alone(ctx, func(app storage.AppenderV2) error {
		return appendFinal(app, parser, target, now)
	})
}

// finalSample is one series of an exposition.
type finalSample struct {
	ref     storage.SeriesRef
	labels  labels.Labels
	counter bool
}

func appendFinal(app storage.AppenderV2, p textparse.Parser, target labels.Labels, now int64) error {
	var series []finalSample
	family, counter := "", false
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("parse: %w", err)
		}
		var v float64
		var h *histogram.Histogram
		var fh *histogram.FloatHistogram
		switch entry {
		case textparse.EntryType:
			name, kind := p.Type()
			family = string(name)
			counter = kind == model.MetricTypeCounter || kind == model.MetricTypeHistogram
			continue
		case textparse.EntrySeries:
			_, _, v = p.Series()
		case textparse.EntryHistogram:
			_, _, h, fh = p.Histogram()
		default:
			continue
		}
		var exposed labels.Labels
		p.Labels(&exposed)
		lset := withTargetLabels(exposed, target)
		if !lset.Has(model.MetricNameLabel) || !lset.IsValid(model.UTF8Validation) {
			return fmt.Errorf("invalid series %s", lset)
		}
		if !inFamily(exposed.Get(model.MetricNameLabel), family) {
			family, counter = "", false // one without a type
		}
		var opts storage.AppendV2Options
		for e := (exemplar.Exemplar{}); p.Exemplar(&e); e = (exemplar.Exemplar{}) {
			if !e.HasTs {
				e.Ts = now
			}
			opts.Exemplars = append(opts.Exemplars, e)
		}
		// A counter that began in this very millisecond began before this sample:
		// without an earlier start there is no zero to increase from.
		start := min(p.StartTimestamp(), now-1)
		ref, err := app.Append(0, lset, start, now, v, h, fh, opts)
		if err != nil {
			if _, partial := errors.AsType[*storage.AppendPartialError](err); !partial {
				return fmt.Errorf("append %s: %w", lset, err)
			} // otherwise only an exemplar was refused
		}
		series = append(series, finalSample{ref, lset, counter && h == nil && fh == nil})
	}
	end := math.Float64frombits(value.StaleNaN)
	for _, f := range series {
		if f.counter {
			if _, err := app.Append(f.ref, f.labels, 0, now+1, 0, nil, nil, storage.AppendV2Options{}); err != nil {
				return fmt.Errorf("reset %s: %w", f.labels, err)
			}
		}
		if _, err := app.Append(f.ref, f.labels, 0, now+2, end, nil, nil, storage.AppendV2Options{}); err != nil {
			return fmt.Errorf("end %s: %w", f.labels, err)
		}
	}
	return nil
}

// inFamily reports whether a series of that name belongs to the metric family.
func inFamily(name, family string) bool {
	suffix, ok := strings.CutPrefix(name, family)
	switch suffix {
	case "", "_total", "_created", "_bucket", "_sum", "_count":
		return ok
	}
	return false
}

// withTargetLabels adds the target's labels as a scrape with honor_labels does.
func withTargetLabels(exposed, target labels.Labels) labels.Labels {
	b := labels.NewBuilder(exposed)
	target.Range(func(l labels.Label) {
		if !exposed.Has(l.Name) {
			b.Set(l.Name, l.Value)
		}
	})
	return b.Labels()
}
