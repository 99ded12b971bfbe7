package metricstore

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
)

// TestMetadataOfCounters: whoever asks by the name of a counter's samples learns
// its type, as who asks by its family.
func TestMetadataOfCounters(t *testing.T) {
	r := start(t, Options{})
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
		io.WriteString(w, "# TYPE requests counter\n# HELP requests Requests.\nrequests_total 3\n# TYPE load gauge\n# HELP load Load.\nload 1\n# EOF\n")
	}))
	t.Cleanup(app.Close)
	r.SetTargets("apps", []Target{{Address: app.Listener.Addr().String(), Path: "/"}})
	r.awaitValue(`requests_total`, 3)
	c, srv := served(t, r.Handler())
	counter, gauge := v1.Metadata{Type: v1.MetricTypeCounter, Help: "Requests."}, v1.Metadata{Type: v1.MetricTypeGauge, Help: "Load."}
	for metric, want := range map[string]map[string][]v1.Metadata{
		"requests_total": {"requests_total": {counter}},
		"requests":       {"requests": {counter}},
		"load":           {"load": {gauge}},
		"load_total":     {},
		"nothing":        {},
	} {
		got, err := c.Metadata(t.Context(), metric, "")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", metric, diff)
		}
	}
	all, err := c.Metadata(t.Context(), "", "1")
	if err != nil || len(all) != 1 {
		t.Errorf("limited to 1: %v, %v", all, err)
	}
	for path, want := range map[string]int{"limit=x": 400, "limit_per_metric=x": 400, "limit=0&limit_per_metric=0": 200} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/api/v1/metadata?"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: status %d, want %d", path, res.StatusCode, want)
		}
	}
}
