package metricstore

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerEnv); dir != "" {
		writeUntilKilled(os.Stdout, dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// unhurried is a ScrapeInterval for tests that look again and again at what was
// scraped: a scrape must last as long to fail, at which its series would end.
const unhurried = 2 * time.Second

// running is a Store at work, for tests.
type running struct {
	*Store
	t    *testing.T
	stop func()
}

// start opens and runs a store that scrapes five times a second.
func start(t *testing.T, o Options) *running {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.ScrapeInterval == 0 {
		o.ScrapeInterval = 200 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	r := &running{Store: s, t: t}
	var stopped bool
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(r.stop)
	r.eventually("ready", s.Ready)
	return r
}

// testWriter sends logs to the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// patience bounds what takes milliseconds on an idle machine: it only says when a
// test gives up.
const patience = 2 * time.Minute

// eventually waits until cond holds.
func (r *running) eventually(what string, cond func() bool) {
	r.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-limit.C:
			r.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// value is the value of an expression that has exactly one sample now.
func (r *running) value(expr string) (float64, bool) {
	r.t.Helper()
	got, err := vectorIn(r.t.Context(), r.Store, expr, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	if len(got) != 1 {
		return 0, false
	}
	return got[0].Value, true
}

// awaitValue waits until the only sample of expr has value want.
func (r *running) awaitValue(expr string, want float64) {
	r.t.Helper()
	var got float64
	var ok bool
	defer func() {
		if r.t.Failed() {
			r.t.Logf("%s: last value %v, %v", expr, got, ok)
		}
	}()
	r.eventually(expr, func() bool {
		got, ok = r.value(expr)
		return ok && got == want
	})
}

// app is a program that exposes metrics.
type app struct {
	*httptest.Server
	reg      *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newApp(t *testing.T, protocols ...promhttp.HandlerOpts) *app {
	t.Helper()
	opts := promhttp.HandlerOpts{EnableOpenMetrics: true, EnableOpenMetricsTextCreatedSamples: true}
	if len(protocols) > 0 {
		opts = protocols[0]
	}
	a := &app{reg: prometheus.NewRegistry()}
	a.requests = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests_total", Help: "Requests."}, []string{"code"})
	a.duration = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "duration_seconds", Help: "Durations.", Buckets: []float64{1, 10}}, []string{"code"})
	a.reg.MustRegister(a.requests, a.duration)
	a.Server = httptest.NewServer(promhttp.HandlerFor(a.reg, opts))
	t.Cleanup(a.Close)
	return a
}

func (a *app) target(labels map[string]string) Target {
	return Target{Address: a.Listener.Addr().String(), Path: "/stats/prometheus", Labels: labels}
}

// exposition is what a scrape with the accept header would get.
func (a *app) exposition(t *testing.T, accept string) (contentType string, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := a.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Get("Content-Type"), body
}

// A counter that appears with value 7 has increased by 7.
func TestNewCounterIsExact(t *testing.T) {
	for name, accept := range map[string]string{
		"protobuf":    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
		"openmetrics": "application/openmetrics-text;version=1.0.0",
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, Options{})
			a := newApp(t)
			// Serve only this format, whatever the scrape prefers.
			a.Config.Handler = forceAccept(accept, a.Config.Handler)
			r.SetTargets("apps", []Target{a.target(map[string]string{"pod": "p1"})})
			r.awaitValue("up", 1)

			a.requests.WithLabelValues("200").Add(7)
			for range 3 {
				a.duration.WithLabelValues("200").Observe(5)
			}
			r.awaitValue(`increase(requests_total{code="200"}[1m] anchored)`, 7)
			r.awaitValue(`increase(duration_seconds_count[1m] anchored)`, 3)
			r.awaitValue(`increase(duration_seconds_bucket{le="10.0"}[1m] anchored)`, 3)
			r.awaitValue(`increase(duration_seconds_bucket{le="1.0"}[1m] anchored)`, 0)
			r.awaitValue(`increase(duration_seconds_sum[1m] anchored)`, 15)

			// The plain increase sees the zero too, but extrapolates to the
			// end of the window, by at most half an interval of the samples
			// it has: never less than 7.
			got, ok := r.value(`increase(requests_total{code="200"}[1m])`)
			if !ok || got < 7 {
				t.Errorf("increase() = %v, %v; want at least 7", got, ok)
			}
			a.requests.WithLabelValues("200").Add(5)
			r.awaitValue(`increase(requests_total{code="200"}[1m] anchored)`, 12)
		})
	}
}

func forceAccept(accept string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Accept", accept)
		h.ServeHTTP(w, r)
	})
}

// A program that starts again counts from zero; nothing is lost or counted
// twice.
func TestCounterResetIsExact(t *testing.T) {
	r := start(t, Options{})
	a := newApp(t)
	r.SetTargets("apps", []Target{a.target(nil)})
	a.requests.WithLabelValues("200").Add(10)
	r.awaitValue(`increase(requests_total[1m] anchored)`, 10)
	a.requests.DeleteLabelValues("200") // evicted, then seen again
	a.requests.WithLabelValues("200").Add(12)
	r.awaitValue(`increase(requests_total[1m] anchored)`, 22)
}

func TestTargetsComeAndGo(t *testing.T) {
	r := start(t, Options{})
	a, b := newApp(t), newApp(t)
	a.requests.WithLabelValues("200").Inc()
	b.requests.WithLabelValues("200").Inc()
	r.SetTargets("apps", []Target{a.target(map[string]string{"pod": "a"}), b.target(map[string]string{"pod": "b"})})
	r.awaitValue(`sum(up{job="apps"})`, 2)
	r.SetTargets("more", []Target{{Address: "127.0.0.1:1", Labels: map[string]string{"pod": "c"}}})
	r.awaitValue(`up{job="more",pod="c"}`, 0)

	r.SetTargets("apps", []Target{b.target(map[string]string{"pod": "b"})})
	r.awaitValue(`count(up{job="apps"})`, 1) // by a staleness marker, not by waiting five minutes
	r.awaitValue(`count(requests_total)`, 1)
	r.awaitValue(`up{job="apps",pod="b"}`, 1)
}

func TestOptions(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yml")
	if err := os.WriteFile(bad, []byte("groups:\n- name: g\n  rules:\n  - alert: A\n    expr: rate(\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"no directory":     {Options{}, "no directory"},
		"timeout too long": {Options{Dir: dir, ScrapeInterval: time.Second, ScrapeTimeout: 2 * time.Second}, "timeout not longer"},
		"retention":        {Options{Dir: dir, RetentionTime: time.Minute}, "at least 1h"},
		"remote write":     {Options{Dir: dir, RemoteWrite: []RemoteWriteConfig{{URL: "nowhere"}}}, `"nowhere"`},
		"external url":     {Options{Dir: dir, ExternalURL: "://"}, "external URL"},
		"rules":            {Options{Dir: dir, RuleFiles: []string{bad}}, "bad.yml"},
		"limits":           {Options{Dir: dir, Limits: Limits{MaxSamples: -1}}, "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(c.o)
			if err == nil {
				s.Close()
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, want %q in it", err, c.want)
			}
		})
	}
}

func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("second Open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("a closed store was run")
	}
}
