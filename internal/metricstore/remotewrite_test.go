package metricstore

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// receiver takes samples by remote write.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	last   map[string]float64 // newest value by metric name and job
	header http.Header
	errors []error
	refuse int // requests still to be answered with 503
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{last: map[string]float64{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse > 0 {
		r.refuse--
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	r.header = req.Header
	packed, err := io.ReadAll(req.Body)
	if err != nil {
		r.errors = append(r.errors, err)
		return
	}
	body, err := snappy.Decode(nil, packed)
	if err != nil {
		r.errors = append(r.errors, err)
		return
	}
	var write prompb.WriteRequest
	if err := write.Unmarshal(body); err != nil {
		r.errors = append(r.errors, err)
		return
	}
	for _, ts := range write.Timeseries {
		var name, job string
		for _, l := range ts.Labels {
			switch l.Name {
			case "__name__":
				name = l.Value
			case "job":
				job = l.Value
			}
		}
		for _, s := range ts.Samples {
			r.last[job+"/"+name] = s.Value
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

func (r *receiver) get(name string) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last[name]
}

// Every sample is sent on, across an outage of the receiver and a restart.
func TestRemoteWrite(t *testing.T) {
	dst := newReceiver(t)
	dst.refuse = 3
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	o := Options{Dir: dir, RemoteWrite: []RemoteWriteConfig{{
		URL: dst.URL + "/api/v1/write", Name: "far", Headers: map[string]string{"X-Tenant": "shop"}, BearerTokenFile: token, Timeout: 5 * time.Second,
	}}}
	r := start(t, o)
	a := newApp(t)
	a.requests.WithLabelValues("200").Add(3)
	r.SetTargets("apps", []Target{a.target(nil)})
	r.eventually("3 requests", func() bool { return dst.get("apps/requests_total") == 3 })
	r.stop()

	a.requests.WithLabelValues("200").Add(4)
	r = start(t, o)
	r.SetTargets("apps", []Target{a.target(nil)})
	r.eventually("7 requests", func() bool { return dst.get("apps/requests_total") == 7 })

	dst.mu.Lock()
	defer dst.mu.Unlock()
	if len(dst.errors) > 0 {
		t.Error(dst.errors)
	}
	for k, want := range map[string]string{
		"X-Tenant": "shop", "Authorization": "Bearer secret", "Content-Encoding": "snappy", "X-Prometheus-Remote-Write-Version": "0.1.0",
	} {
		if got := dst.header.Get(k); got != want {
			t.Errorf("%s: %q, want %q", k, got, want)
		}
	}
}
