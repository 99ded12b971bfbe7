package metricstore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// turns keeps what is appended alone apart from what scrapes append. The database
// writes a series to its log with the commit of the appender that met it first. If
// another one adds samples to it and commits before that, the log has these samples
// ahead of their series, and the next start drops them.
type turns struct{ mu sync.RWMutex }

// sharedAppender is one of many at the same time; it begins with its first sample.
type sharedAppender struct {
	storage.AppenderV2
	turns *turns
	begun bool
}

// Append implements storage.AppenderV2.
func (a *sharedAppender) Append(ref storage.SeriesRef, l labels.Labels, st, t int64, v float64, h *histogram.Histogram,
	fh *histogram.FloatHistogram, opts storage.AppendV2Options,
) (storage.SeriesRef, error) {
	if !a.begun {
		a.begun = true
		a.turns.mu.RLock()
	}
	return a.AppenderV2.Append(ref, l, st, t, v, h, fh, opts)
}

// Commit implements storage.AppenderV2.
func (a *sharedAppender) Commit() error {
	defer a.end()
	return a.AppenderV2.Commit()
}

// Rollback implements storage.AppenderV2.
func (a *sharedAppender) Rollback() error {
	defer a.end()
	return a.AppenderV2.Rollback()
}

func (a *sharedAppender) end() {
	if a.begun {
		a.begun = false
		a.turns.mu.RUnlock()
	}
}

// alone calls add with an appender while no other one is between its first sample
// and its end, and commits if add succeeds. add must not use another appender.
func (g *guardedStorage) alone(ctx context.Context, add func(storage.AppenderV2) error) error {
	g.turns.mu.Lock()
	defer g.turns.mu.Unlock()
	app := g.appenderV2(ctx)
	if err := add(app); err != nil {
		return errors.Join(err, app.Rollback())
	}
	if err := app.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}
