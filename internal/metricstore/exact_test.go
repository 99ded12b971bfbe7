package metricstore

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// A series that is created between the moment a scrape is stamped with and the
// moment the target answers is younger than its own first sample, so that there
// is no zero before it. The zero comes with the next scrape, and the count is
// exact from then on.
func TestSeriesYoungerThanScrape(t *testing.T) {
	s, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	base := time.Now().Add(-time.Minute).UnixMilli()
	scrape := func(name string, created, at int64, v float64) {
		t.Helper()
		app := s.writable.AppenderV2(context.Background())
		if _, err := app.Append(0, labels.FromStrings("__name__", name), created, base+at, v, nil, nil, storage.AppendV2Options{}); err != nil {
			t.Fatal(err)
		}
		if err := app.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	check := func(name string, at int64, want float64) {
		t.Helper()
		got, err := vectorIn(t.Context(), s, "increase("+name+"[30s] anchored)", time.UnixMilli(base+at))
		if err != nil || len(got) != 1 || got[0].Value != want {
			t.Errorf("%s at %d ms: %v, %v; want %v", name, at, got, err, want)
		}
	}
	created := base + 1002
	scrape("grows", created, 1000, 1)
	scrape("grows", created, 6000, 5)
	check("grows", 6000, 5)
	scrape("grows", created, 11000, 5)
	check("grows", 11000, 5)

	scrape("once", created, 1000, 1)
	scrape("once", created, 6000, 1)
	check("once", 6000, 1)

	// An ordinary new series, for comparison.
	scrape("new", created, 6000, 7)
	check("new", 6000, 7)

	// The clock is set back by three seconds: samples are refused until it has
	// caught up, and nothing is counted twice or lost.
	app := s.writable.AppenderV2(context.Background())
	if _, err := app.Append(0, labels.FromStrings("__name__", "grows"), created, base+8000, 6, nil, nil, storage.AppendV2Options{}); err == nil {
		t.Error("a sample was stored in the past")
	}
	if err := app.Rollback(); err != nil {
		t.Fatal(err)
	}
	scrape("grows", created, 12000, 8)
	check("grows", 12000, 8)
}
