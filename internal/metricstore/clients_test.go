package metricstore

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestCallsOfGrafanaAndKiali makes each call that Grafana's Prometheus data
// source and Kiali make, in their way: parameters of queries in a form, times as
// fractions of seconds or RFC 3339, answers compressed. Whether the embedded
// store answers or another server behind it makes no difference.
func TestCallsOfGrafanaAndKiali(t *testing.T) {
	r := start(t, Options{Version: "3.5.0", ScrapeInterval: unhurried})
	a := newApp(t)
	r.SetTargets("apps", []Target{a.target(map[string]string{"pod": "p1"})})
	a.requests.WithLabelValues("200").Add(3)
	r.awaitValue(`requests_total`, 3)
	for name, handler := range map[string]http.Handler{"embedded": r.Handler(), "remote": asRemote(t, r).Handler()} {
		t.Run(name, func(t *testing.T) { callAsClients(t, handler) })
	}
}

func callAsClients(t *testing.T, handler http.Handler) {
	t.Helper()
	_, srv := served(t, handler)
	now := time.Now()
	unix := func(at time.Time) string { return fmt.Sprintf("%.3f", float64(at.UnixMilli())/1000) }
	from, to := unix(now.Add(-time.Hour)), unix(now.Add(time.Minute))
	rfc := now.Add(time.Minute).UTC().Format(time.RFC3339Nano)
	matched := url.Values{"match[]": {`requests_total{job="apps"}`}, "start": {from}, "end": {to}}
	for _, c := range []struct {
		method, path string
		form         url.Values
		want         string // part of the answer's data, without spaces
	}{
		// Grafana: "Save & test", and what it asks to know the server.
		{"POST", "query", url.Values{"query": {"1+1"}, "time": {unix(now)}}, `"resultType":"scalar"`},
		{"GET", "status/buildinfo", nil, `"version":"3.5.0"`},
		{"GET", "rules", nil, `"groups":[]`},
		{"GET", "rules?type=alert", nil, `"groups":[]`},
		{"GET", "alerts", nil, `"alerts":[]`},
		// Grafana: panels, Explore, variables, annotations.
		{"POST", "query_range", url.Values{"query": {"sum(requests_total)"}, "start": {from}, "end": {to}, "step": {"15"}}, `"resultType":"matrix"`},
		{"POST", "query", url.Values{"query": {"requests_total"}, "time": {to}, "timeout": {"60s"}, "stats": {"all"}}, `"samples":{"totalQueryableSamples"`},
		{"POST", "query_exemplars", url.Values{"query": {"requests_total"}, "start": {from}, "end": {to}}, `[]`},
		{"GET", "query_exemplars?query=requests_total&start=" + from + "&end=" + to, nil, `[]`},
		{"POST", "labels", matched, `"code"`},
		{"GET", "labels?" + matched.Encode(), nil, `"code"`},
		{"GET", "label/pod/values?" + matched.Encode(), nil, `["p1"]`},
		{"GET", "label/__name__/values?limit=40000&start=" + from + "&end=" + to, nil, `"requests_total"`},
		{"POST", "series", matched, `"__name__":"requests_total"`},
		{"GET", "series?" + matched.Encode(), nil, `"pod":"p1"`},
		{"GET", "metadata", nil, `"requests_total":[{"type":"counter"`},
		{"GET", "metadata?limit=1&metric=requests_total", nil, `"unit":""`},
		{"GET", "metadata?limit_per_metric=1&metric=requests_total", nil, `"help":"Requests."`},
		{"GET", "targets/metadata?metric=requests_total", nil, `"type":"counter","help":"Requests."`},
		{"GET", "format_query?query=sum(requests_total)by(pod)", nil, `sumby(pod)(requests_total)`},
		{"POST", "parse_query", url.Values{"query": {"rate(requests_total[5m])"}}, `"name":"rate"`},
		// Kiali: the client library of Prometheus, times in RFC 3339.
		{"POST", "query", url.Values{"query": {"sum(requests_total) by (pod)"}, "time": {rfc}}, `"pod":"p1"`},
		{"GET", "query?query=requests_total&time=" + url.QueryEscape(rfc), nil, `"pod":"p1"`},
		{"GET", "status/config", nil, `scrape_interval:`},
		{"GET", "status/flags", nil, `"storage.tsdb.retention.time"`},
		{"GET", "status/runtimeinfo", nil, `"storageRetention"`},
		{"GET", "status/tsdb", nil, `"headStats"`},
		{"GET", "targets?state=active", nil, `"health":"up"`},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), c.method, srv.URL+"/api/v1/"+c.path, strings.NewReader(c.form.Encode()))
			if err != nil {
				t.Fatal(err)
			}
			if c.form != nil {
				req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			}
			req.Header.Set("Accept-Encoding", "gzip") // and so no decompression by the client
			resp, err := srv.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var body io.Reader = resp.Body
			if resp.Header.Get("Content-Encoding") == "gzip" {
				if body, err = gzip.NewReader(body); err != nil {
					t.Fatal(err)
				}
			}
			var answer struct {
				Status, Error string
				Data          json.RawMessage
			}
			if err := json.NewDecoder(body).Decode(&answer); err != nil {
				t.Fatal(err)
			}
			data := strings.ReplaceAll(string(answer.Data), " ", "")
			if resp.StatusCode != http.StatusOK || answer.Status != "success" || !strings.Contains(data, c.want) {
				t.Errorf("status %d, %s %s: no %s in %.1000s", resp.StatusCode, answer.Status, answer.Error, c.want, data)
			}
		})
	}
	// Health checks, of Kiali and of orchestrators, which may ask for the head only.
	for _, path := range []string{"/-/healthy", "/-/ready"} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			if status, _, _ := do(t, srv, method, path); status != http.StatusOK {
				t.Errorf("%s %s: status %d", method, path, status)
			}
		}
	}
}
