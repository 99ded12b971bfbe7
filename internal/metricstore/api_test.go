package metricstore

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
)

// served is a running store behind a real listener.
func served(t *testing.T, h http.Handler) (v1.API, *httptest.Server) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := api.NewClient(api.Config{Address: srv.URL, Client: srv.Client()})
	if err != nil {
		t.Fatal(err)
	}
	return v1.NewAPI(c), srv
}

const testRules = `groups:
- name: demo
  interval: 200ms
  rules:
  - record: job:requests:sum
    expr: sum by (job) (requests_total)
  - alert: TooMany
    expr: job:requests:sum > 2
    labels: {severity: page}
    annotations: {summary: "{{ $labels.job }} has {{ $value }}"}
`

// Every endpoint answers, and with content, to Prometheus's own client.
func TestAPI(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(rules, []byte(testRules), 0o600); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var notified []Alert
	r := start(t, Options{
		RuleFiles: []string{rules}, Version: "1.2.3", RetentionTime: 48 * time.Hour, RetentionBytes: 1 << 30,
		ScrapeInterval: unhurried,
		Notify: func(_ context.Context, alerts []Alert) {
			mu.Lock()
			defer mu.Unlock()
			notified = append(notified, alerts...)
		},
	})
	a := newApp(t)
	r.SetTargets("apps", []Target{a.target(map[string]string{"pod": "p1"})})
	a.requests.WithLabelValues("200").(prometheus.ExemplarAdder).AddWithExemplar(3, prometheus.Labels{"trace_id": "abc"})
	r.awaitValue(`job:requests:sum`, 3)
	r.awaitValue(`ALERTS{alertstate="firing"}`, 1)

	c, _ := served(t, r.Handler())
	ctx := t.Context()
	now := time.Now()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, got, want any) {
		t.Helper()
		g, _ := json.Marshal(got)
		w, _ := json.Marshal(want)
		if string(g) != string(w) {
			t.Errorf("%s: got %s, want %s", what, g, w)
		}
	}

	vector, _, _, err := c.Query(ctx, `sum(requests_total)`, now)
	must(err)
	check("query", vector.(model.Vector)[0].Value, model.SampleValue(3))
	matrix, _, _, err := c.QueryRange(ctx, `sum(requests_total)`, v1.Range{Start: now.Add(-time.Second), End: now, Step: time.Second})
	must(err)
	check("query_range", len(matrix.(model.Matrix)), 1)
	sets, _, _, err := c.Series(ctx, []string{`requests_total`}, now.Add(-time.Minute), now)
	must(err)
	check("series", sets, []model.LabelSet{{
		"__name__": "requests_total", "code": "200", "instance": model.LabelValue(a.Listener.Addr().String()), "job": "apps", "pod": "p1",
	}})
	names, _, _, err := c.LabelNames(ctx, nil, now.Add(-time.Minute), now)
	must(err)
	check("labels", slices.Contains(names, model.LabelName("pod")), true)
	values, _, _, err := c.LabelValues(ctx, "pod", nil, now.Add(-time.Minute), now)
	must(err)
	check("label values", values, []string{"p1"})
	meta, err := c.Metadata(ctx, "requests_total", "")
	must(err)
	check("metadata", meta["requests_total"], []v1.Metadata{{Type: v1.MetricTypeCounter, Help: "Requests."}})
	targetMeta, err := c.TargetsMetadata(ctx, `{job="apps"}`, "requests_total", "")
	must(err)
	check("targets metadata", len(targetMeta), 1)
	targets, err := c.Targets(ctx)
	must(err)
	check("targets", []any{len(targets.Active), targets.Active[0].Health, targets.Active[0].ScrapeURL},
		[]any{1, "up", a.URL + "/stats/prometheus"})
	exemplars, err := c.QueryExemplars(ctx, `requests_total`, now.Add(-time.Minute), now.Add(time.Minute))
	must(err)
	check("exemplars", exemplars[0].Exemplars[0].Labels, model.LabelSet{"trace_id": "abc"})
	got, err := c.Rules(ctx, nil)
	must(err)
	check("rules", []any{len(got.Groups), got.Groups[0].Name, len(got.Groups[0].Rules)}, []any{1, "demo", 2})
	alerts, err := c.Alerts(ctx)
	must(err)
	check("alerts", []any{alerts.Alerts[0].State, alerts.Alerts[0].Annotations["summary"]}, []any{"firing", "apps has 3"})
	managers, err := c.AlertManagers(ctx)
	must(err)
	check("alertmanagers", len(managers.Active), 0)
	cfg, err := c.Config(ctx)
	must(err)
	check("config", strings.Contains(cfg.YAML, "job_name: apps") && strings.Contains(cfg.YAML, "scrape_interval: 2s"), true)
	flags, err := c.Flags(ctx)
	must(err)
	check("flags", flags["storage.tsdb.retention.time"], "2d")
	build, err := c.Buildinfo(ctx)
	must(err)
	check("build info", []string{build.Version, build.Revision}, []string{cmp.Or(engineVersion(), "1.2.3"), "1.2.3"})
	runtimeInfo, err := c.Runtimeinfo(ctx)
	must(err)
	check("runtime info", runtimeInfo.StorageRetention, "2d or 1073741824B")
	stats, err := c.TSDB(ctx)
	must(err)
	check("tsdb", stats.HeadStats.NumSeries > 5, true)
	replay, err := c.WalReplay(ctx)
	must(err)
	check("walreplay", replay.Current, 0)
	formatted, err := c.FormatQuery(ctx, `sum(requests_total)by(job)`)
	must(err)
	check("format_query", formatted, `"sum by (job) (requests_total)"`)

	mu.Lock()
	defer mu.Unlock()
	if len(notified) == 0 {
		t.Fatal("no notification")
	}
	first := notified[0]
	check("notification", []any{first.Labels, first.Annotations, first.Value, first.Resolved},
		[]any{map[string]string{"alertname": "TooMany", "job": "apps", "severity": "page"}, map[string]string{"summary": "apps has 3"}, 3, false})
	check("notification link", strings.HasPrefix(first.GeneratorURL, "http://127.0.0.1:9090/graph?g0.expr=job%3Arequests%3Asum"), true)
}

// Endpoints that the client library has no function for.
func TestPlainHTTP(t *testing.T) {
	r := start(t, Options{ScrapeInterval: unhurried})
	a := newApp(t)
	r.SetTargets("apps", []Target{a.target(map[string]string{"pod": `<img src=x onerror="alert(1)">`})})
	r.awaitValue("up", 1)
	_, srv := served(t, r.Handler())
	for _, c := range []struct {
		method, path string
		status       int
		want         string
	}{
		{"GET", "/-/healthy", 200, "Healthy"},
		{"GET", "/-/ready", 200, "Ready"},
		{"GET", "/", 200, "HTTP API of Prometheus"},
		{"GET", "/targets", 200, "apps (1/1 up)"},
		{"GET", "/targets", 200, `pod=&#34;&lt;img src=x onerror=\&#34;alert(1)\&#34;&gt;&#34;`},
		{"GET", "/metrics", 200, "prometheus_tsdb_head_series"},
		{"GET", "/nothing", 404, "not found"},
		{"GET", "/api/v1/parse_query?query=up", 200, `"type":"vectorSelector"`},
		{"GET", "/api/v1/features", 200, `"start_timestamp_zero_ingestion":true`},
		{"GET", "/api/v1/scrape_pools", 200, `"apps"`},
		{"GET", "/api/v1/query?query=" + "sum(", 400, "parse error"},
		{"GET", "/api/v1/notifications", 200, `"data":[]`},
		{"GET", "/api/v1/status/tsdb/blocks", 200, `"status":"success"`},
		{"POST", "/api/v1/admin/tsdb/delete_series?match[]=up", 0, "admin APIs disabled"},
		{"POST", "/api/v1/write", 404, "remote write receiver needs to be enabled"},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			status, header, body := do(t, srv, c.method, c.path)
			if c.status != 0 && status != c.status {
				t.Errorf("status %d, want %d", status, c.status)
			}
			if !strings.Contains(body, c.want) {
				t.Errorf("no %q in %s", c.want, body)
			}
			if header.Get("Access-Control-Allow-Origin") != "" {
				t.Error("another origin may read this")
			}
		})
	}
	r.stop()
	if status, _, _ := do(t, srv, "GET", "/-/ready"); status != http.StatusServiceUnavailable {
		t.Errorf("ready after the end: %d", status)
	}
	if status, _, _ := do(t, srv, "GET", "/api/v1/query?query=up"); status != http.StatusServiceUnavailable {
		t.Errorf("query after the end: %d", status)
	}
}

func do(t *testing.T, srv *httptest.Server, method, path string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", "http://evil.example")
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

func TestEval(t *testing.T) {
	r := start(t, Options{ScrapeInterval: unhurried})
	a := newApp(t)
	r.SetTargets("apps", []Target{a.target(nil)})
	r.eventually("three scrapes", func() bool {
		n, ok := r.value("count_over_time(up[1m])")
		return ok && n >= 3
	})
	now := time.Now()
	e, ctx, at := asRemote(t, r), t.Context(), time.UnixMilli(now.UnixMilli())
	if got, err := e.Eval(ctx, `1+1`, now); err != nil || got.Type != ResultScalar || got.Samples[0].Value != 2 || got.Samples[0].Time.Sub(at).Abs() > time.Millisecond {
		t.Errorf("scalar: %+v, %v", got, err)
	}
	if got, err := e.Eval(ctx, `"x"`, now); err != nil || got.Type != ResultString || got.Text != "x" {
		t.Errorf("string: %+v, %v", got, err)
	}
	if got, err := e.Eval(ctx, `up`, now); err != nil || got.Type != ResultVector || got.Samples[0].Labels["job"] != "apps" || got.Samples[0].Value != 1 {
		t.Errorf("vector: %+v, %v", got, err)
	}
	if got, err := e.Eval(ctx, `up[1m]`, now); err != nil || got.Type != ResultMatrix || len(got.Series[0].Points) == 0 {
		t.Errorf("matrix: %+v, %v", got, err)
	}
	if _, err := e.Query(ctx, `up[1m]`, now); err == nil || !strings.Contains(err.Error(), "matrix") {
		t.Errorf("Query of a matrix: %v", err)
	}
	if _, err := e.Query(ctx, `sum(`, now); err == nil || !strings.Contains(err.Error(), "parse error") {
		t.Errorf("Query of nonsense: %v", err)
	}
	course, err := e.EvalRange(ctx, `vector(7)`, at.Add(-2*time.Second), at, time.Second)
	got := course.Series
	if err != nil || len(got) != 1 || len(got[0].Points) != 3 || got[0].Points[2].Value != 7 || got[0].Points[2].Time.Sub(at).Abs() > time.Millisecond {
		t.Errorf("EvalRange: %+v, %v", got, err)
	}
	if _, err := e.EvalRange(ctx, `up`, now, now.Add(-time.Second), time.Second); err == nil {
		t.Error("a range that ends before it begins was accepted")
	}
	if got, err := e.Eval(ctx, `rate(up[1m])`, now); err != nil || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "might not be a counter") {
		t.Errorf("warnings: %+v, %v", got.Warnings, err)
	}
}

// A query beyond the limits fails, and others go on.
func TestLimits(t *testing.T) {
	r := start(t, Options{Limits: Limits{MaxSamples: 50, Timeout: 10 * time.Second, Concurrency: 1, ScrapeSamples: 20}})
	a := newApp(t)
	r.SetTargets("apps", []Target{a.target(nil)})
	r.awaitValue("up", 1)
	now := time.Now()
	if _, err := asRemote(t, r).EvalRange(t.Context(), `vector(1)`, now.Add(-time.Hour), now, time.Second); err == nil || !strings.Contains(err.Error(), "too many samples") {
		t.Errorf("3600 samples: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := vectorIn(ctx, r.Store, `up`, now); err == nil {
		t.Error("a query whose caller is gone was answered")
	}
	for range 30 {
		a.requests.WithLabelValues(time.Now().Format(time.StampNano)).Inc()
	}
	r.awaitValue("up", 0) // a scrape with too many samples is refused as a whole
	r.eventually("reason", func() bool {
		for _, ts := range r.scraper.TargetsActive() {
			if err := ts[0].LastError(); err != nil && strings.Contains(err.Error(), "sample limit exceeded") {
				return true
			}
		}
		return false
	})
}

// Prometheus's own suite of PromQL tests runs on our engine options.
func TestPromQLSuite(t *testing.T) {
	o, err := Options{Dir: t.TempDir()}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	opts := engineOpts(o, nil, nil)
	opts.MaxSamples = promqltest.DefaultMaxSamplesPerQuery
	// The suite covers what a server has behind feature flags too, and wants a
	// subquery step of a minute.
	opts.EnableDelayedNameRemoval = true
	opts.UseStartTimestamps = true
	opts.Parser = promqltestParser()
	opts.NoStepSubqueryIntervalFn = func(int64) int64 { return time.Minute.Milliseconds() }
	promqltest.RunBuiltinTests(t, promql.NewEngine(opts))
}
