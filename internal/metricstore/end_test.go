package metricstore

import (
	"strings"
	"testing"
	"time"
)

// TestEndSeries: what ended for good is not shown by the store that is opened
// next, though it was counted; after a mere restart it is.
func TestEndSeries(t *testing.T) {
	for name, end := range map[string]bool{"ended": true, "restarted": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := start(t, Options{Dir: dir})
			a := newApp(t)
			a.requests.WithLabelValues("200").Add(3)
			r.SetTargets("apps", []Target{a.target(nil)})
			r.awaitValue("requests_total", 3)
			if end {
				r.EndSeries()
			}
			r.stop()
			r = start(t, Options{Dir: dir})
			got, err := r.Query(t.Context(), `{job="apps"}`, time.Now())
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
