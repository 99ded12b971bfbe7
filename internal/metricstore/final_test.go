package metricstore

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	promlabels "github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// Counters of a program that ends are complete although the last scrape was
// before its last requests.
func TestAppendFinal(t *testing.T) {
	for name, accept := range map[string]string{
		"protobuf":    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
		"openmetrics": "application/openmetrics-text;version=1.0.0",
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, Options{ScrapeInterval: time.Hour, ScrapeTimeout: time.Second}) // at most one scrape
			a := newApp(t)
			target := a.target(map[string]string{"pod": "p1"})
			a.requests.WithLabelValues("200").Add(4)
			a.requests.WithLabelValues("500").Inc()
			a.duration.WithLabelValues("200").Observe(5)
			contentType, body := a.exposition(t, accept)
			if err := r.AppendFinal(t.Context(), "apps", target, contentType, body); err != nil {
				t.Fatal(err)
			}
			r.awaitValue(`increase(requests_total{code="200",job="apps",pod="p1",instance="`+target.Address+`"}[1m] anchored)`, 4)
			r.awaitValue(`increase(requests_total{code="500"}[1m] anchored)`, 1)
			r.awaitValue(`increase(duration_seconds_bucket{le="10.0"}[1m] anchored)`, 1)
			// It has ended: nothing to see at present.
			r.eventually("series ended", func() bool {
				_, ok := r.value(`count(requests_total)`)
				return !ok
			})
		})
	}
}

func TestAppendFinalAfterScrapes(t *testing.T) {
	r := start(t, Options{})
	a := newApp(t)
	target := a.target(nil)
	r.SetTargets("apps", []Target{target})
	a.requests.WithLabelValues("200").Add(3)
	r.awaitValue(`requests_total`, 3)
	a.requests.WithLabelValues("200").Add(2)
	a.requests.WithLabelValues("503").Add(9)
	contentType, body := a.exposition(t, "application/openmetrics-text;version=1.0.0")
	a.Close()
	if err := r.AppendFinal(t.Context(), "apps", target, contentType, body); err != nil {
		t.Fatal(err)
	}
	r.SetTargets("apps", nil)
	r.awaitValue(`increase(requests_total{code="200"}[1m] anchored)`, 5)
	r.awaitValue(`increase(requests_total{code="503"}[1m] anchored)`, 9)
	r.eventually("series ended", func() bool {
		_, ok := r.value(`count(requests_total)`)
		return !ok
	})
}

// The last exposition arrives while the target is still being scraped: scrapes
// of the same moment do not keep it out.
func TestAppendFinalBetweenScrapes(t *testing.T) {
	r := start(t, Options{})
	target := Target{Address: "127.0.0.1:15020"}
	labels, err := r.scrapeLabels("apps", target)
	if err != nil {
		t.Fatal(err)
	}
	// Samples of the next 12 ms, as a scrape whose time was aligned stores them.
	b := promlabels.NewBuilder(labels)
	b.Set("__name__", "requests_total")
	app := r.writable.AppenderV2(t.Context())
	for ms := range int64(12) {
		if _, err := app.Append(0, b.Labels(), 0, time.Now().UnixMilli()+ms, 3, nil, nil, storage.AppendV2Options{}); err != nil && ms > 0 {
			t.Fatal(err)
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := r.AppendFinal(t.Context(), "apps", target, "text/plain;version=0.0.4", []byte("requests_total 8\n")); err != nil {
		t.Fatal(err)
	}
	r.awaitValue(`max_over_time(requests_total[1m])`, 8)
	r.eventually("series ended", func() bool {
		_, ok := r.value(`count(requests_total)`)
		return !ok
	})
}

// What the last exposition adds to series that a scrape has just begun is there after
// the next start too, though that scrape ends after it.
func TestAppendFinalAmidAScrape(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Options{Dir: dir})
	target := Target{Address: "127.0.0.1:15020"}
	labels, err := r.scrapeLabels("apps", target)
	if err != nil {
		t.Fatal(err)
	}
	b := promlabels.NewBuilder(labels)
	b.Set("__name__", "requests_total")
	app := r.writable.AppenderV2(t.Context())
	if _, err := app.Append(0, b.Labels(), 0, time.Now().UnixMilli(), 3, nil, nil, storage.AppendV2Options{}); err != nil {
		t.Fatal(err)
	}
	final := make(chan error, 1)
	go func() {
		final <- r.AppendFinal(t.Context(), "apps", target, "text/plain;version=0.0.4", []byte("requests_total 8\n"))
	}()
	r.eventually("the exposition waits for the scrape, or is stored at once", func() bool {
		if !r.writable.turns.mu.TryRLock() {
			return true
		}
		r.writable.turns.mu.RUnlock()
		return len(final) > 0
	})
	if err := errors.Join(app.Commit(), <-final); err != nil {
		t.Fatal(err)
	}
	r.stop()
	r = start(t, Options{Dir: dir})
	r.awaitValue(`max_over_time(requests_total[1m])`, 8)
}

// A replica that comes back under the same name and address is counted from
// zero, even if it has counted as much as its predecessor when it is seen first.
func TestSuccessorIsCountedFromZero(t *testing.T) {
	r := start(t, Options{})
	a := newApp(t)
	target := a.target(nil)
	const before = "# TYPE requests_total counter\nrequests_total{code=\"200\"} 16\n"
	if err := r.AppendFinal(t.Context(), "apps", target, "text/plain;version=0.0.4", []byte(before)); err != nil {
		t.Fatal(err)
	}
	r.awaitValue(`max_over_time(requests_total[1m])`, 16)
	a.requests.WithLabelValues("200").Add(16)
	r.SetTargets("apps", []Target{target})
	r.awaitValue(`requests_total`, 16)
	r.awaitValue(`increase(requests_total[1m] anchored)`, 16)
	r.awaitValue(`sum_over_time(requests_total[1m]) >= bool 32`, 1)
	a.requests.WithLabelValues("200").Add(4)
	r.awaitValue(`increase(requests_total[1m] anchored)`, 20)
}

// A counter that began in the millisecond in which its program ended, or, by a
// clock that was set back, after it, has increased from zero all the same.
func TestAppendFinalOfAYoungCounter(t *testing.T) {
	r := start(t, Options{})
	created := float64(time.Now().Add(time.Minute).UnixMilli()) / 1000
	body := fmt.Sprintf("# TYPE requests counter\nrequests_total 4\nrequests_created %.3f\n# EOF\n", created)
	if err := r.AppendFinal(t.Context(), "apps", Target{Address: "127.0.0.1:15020"}, "application/openmetrics-text;version=1.0.0", []byte(body)); err != nil {
		t.Fatal(err)
	}
	r.awaitValue(`increase(requests_total[1m] anchored)`, 4)
}

func TestAppendFinalErrors(t *testing.T) {
	r := start(t, Options{})
	target := Target{Address: "127.0.0.1:15020"}
	for name, c := range map[string]struct {
		target      Target
		contentType string
		body        string
		want        string
	}{
		"no such format": {target, "image/png", "a 1\n", `content type "image/png"`},
		"not metrics":    {target, "application/openmetrics-text;version=1.0.0", "a{ 1\n", "parse"},
		"bad address":    {Target{Address: "a/b"}, "text/plain;version=0.0.4", "a 1\n", "a/b"},
	} {
		t.Run(name, func(t *testing.T) {
			err := r.AppendFinal(t.Context(), "apps", c.target, c.contentType, []byte(c.body))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if _, ok := r.value(`count({__name__="a"})`); ok {
		t.Error("part of a bad exposition was stored")
	}
}
