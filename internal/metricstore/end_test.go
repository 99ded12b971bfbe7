package metricstore

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// A sample of a later time, as of a clock that was set back, keeps no other series
// open.
func TestEndSeriesAfterALaterSample(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Options{Dir: dir})
	a := newApp(t)
	a.requests.WithLabelValues("200").Add(3)
	r.SetTargets("apps", []Target{a.target(nil)})
	r.awaitValue("requests_total", 3)
	app := r.db.Appender(t.Context())
	if _, err := app.Append(0, labels.FromStrings("__name__", "ahead"), time.Now().Add(time.Minute).UnixMilli(), 1); err != nil {
		t.Fatal(err)
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	r.EndSeries()
	r.stop()
	r = start(t, Options{Dir: dir})
	if v, ok := r.value("requests_total"); ok {
		t.Errorf("shown with %v", v)
	}
}

// Who queries the server that the samples are sent to sees the end, too.
func TestEndSeriesIsSentOn(t *testing.T) {
	dst := newReceiver(t)
	r := start(t, Options{RemoteWrite: []RemoteWriteConfig{{URL: dst.URL, Name: "far"}}})
	a := newApp(t)
	a.requests.WithLabelValues("200").Add(3)
	r.SetTargets("apps", []Target{a.target(nil)})
	r.eventually("3 requests", func() bool { return dst.get("apps/requests_total") == 3 })
	r.EndSeries()
	r.stop()
	if got := dst.get("apps/requests_total"); !value.IsStaleNaN(got) {
		t.Errorf("the last sample is %v", got)
	}
}

// TestEndSeries: what ended for good is not shown by the store that is opened
// next, though it was counted; after a mere restart it is.
func TestEndSeries(t *testing.T) {
	for name, end := range map[string]bool{"ended": true, "restarted": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := start(t, Options{Dir: dir, ScrapeInterval: unhurried})
			a := newApp(t)
			a.requests.WithLabelValues("200").Add(3)
			r.SetTargets("apps", []Target{a.target(nil)})
			r.awaitValue("requests_total", 3)
			if end {
				r.EndSeries()
			}
			r.stop()
			r = start(t, Options{Dir: dir})
			got, err := vectorIn(t.Context(), r.Store, `{job="apps"}`, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			var shown []string
			for _, s := range got {
				shown = append(shown, s.Labels["__name__"])
			}
			if names := strings.Join(shown, " "); strings.Contains(names, "requests_total") == end || strings.Contains(names, "up") == end {
				t.Errorf("shown: %s", names)
			}
			r.awaitValue("max_over_time(requests_total[5m])", 3)
		})
	}
}
