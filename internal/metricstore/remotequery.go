package metricstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// Remote is a Prometheus-compatible server that is asked instead of a Store.
// It is safe for concurrent use.
type Remote struct {
	url    *url.URL
	api    v1.API
	client *http.Client
}

// NewRemote makes a Remote for the server at base, as in
// http://prometheus:9090 or https://host/prometheus. It does not connect.
func NewRemote(base string) (*Remote, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("query URL %q: give scheme and host, as in http://prometheus:9090", base)
	}
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/api/v1")
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     30 * time.Second,
		ForceAttemptHTTP2:   true,
	}
	client := &http.Client{Transport: transport}
	c, err := api.NewClient(api.Config{Address: u.String(), Client: client})
	if err != nil {
		return nil, fmt.Errorf("query URL %q: %w", base, err)
	}
	return &Remote{url: u, api: v1.NewAPI(c), client: client}, nil
}

// Close closes idle connections.
func (r *Remote) Close() { r.client.CloseIdleConnections() }

// Handler passes requests that read from /api/v1 on to the server and answers
// 404 to all others, 405 to other methods than GET, HEAD, OPTIONS and POST.
func (r *Remote) Handler() http.Handler {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(r.url)
			p.Out.Header.Del("Cookie") // of the console, not of that server
		},
		Transport: r.client.Transport,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadGateway)
			_ = json.NewEncoder(w).Encode(map[string]string{ // the client may be gone
				"status": "error", "errorType": "unavailable",
				"error": "the server at " + r.url.Redacted() + " does not answer: " + err.Error(),
			})
		},
	}
	mux := http.NewServeMux()
	pass := func(w http.ResponseWriter, req *http.Request) {
		// Encoded slashes and dots would name another path to who decodes first.
		for _, part := range []string{req.PathValue("name"), req.PathValue("what")} {
			if part == "." || part == ".." || strings.Contains(part, "/") {
				http.NotFound(w, req)
				return
			}
		}
		proxy.ServeHTTP(w, req)
	}
	// What else a server has (deleting series, snapshots, writing) it asks its own
	// password for, if any: whoever may speak with us may not do it through us.
	for _, path := range []string{
		"query", "query_range", "query_exemplars", "format_query", "parse_query", "features",
		"series", "labels", "label/{name}/values", "metadata",
		"targets", "targets/metadata", "targets/relabel_steps", "scrape_pools", "rules", "alerts", "alertmanagers",
		"status/{what}", "status/tsdb/blocks",
	} {
		for _, method := range []string{"GET ", "POST ", "OPTIONS "} {
			mux.HandleFunc(method+"/api/v1/"+path, pass)
		}
	}
	// By these clients see whether there is a server; it is that one's to say.
	mux.HandleFunc("GET /-/healthy", pass)
	mux.HandleFunc("GET /-/ready", pass)
	return mux
}

// Eval evaluates an expression at one time.
func (r *Remote) Eval(ctx context.Context, expr string, at time.Time) (Result, error) {
	if text, ok := stringLiteral(expr); ok { // what the client library cannot read
		return Result{Type: ResultString, Text: text}, nil
	}
	v, warnings, infos, err := r.api.Query(ctx, expr, at)
	return r.result(expr, v, append(warnings, infos...), err)
}

// EvalRange evaluates an expression at start, start+step, … up to end.
func (r *Remote) EvalRange(ctx context.Context, expr string, start, end time.Time, step time.Duration) (Result, error) {
	v, warnings, infos, err := r.api.QueryRange(ctx, expr, v1.Range{Start: start, End: end, Step: step})
	return r.result(expr, v, append(warnings, infos...), err)
}

// Query is Eval for expressions whose value is a vector or a scalar.
func (r *Remote) Query(ctx context.Context, expr string, at time.Time) ([]Sample, error) {
	res, err := r.Eval(ctx, expr, at)
	return vectorOf(expr, res, err)
}

// Understands reports whether the server can evaluate expr: servers differ in
// their functions and modifiers. An error means that it did not say.
func (r *Remote) Understands(ctx context.Context, expr string) (bool, error) {
	_, err := r.Eval(ctx, expr, time.Time{})
	if answer := (*v1.Error)(nil); errors.As(err, &answer) {
		switch answer.Type {
		case v1.ErrTimeout, v1.ErrCanceled, v1.ErrServer, "internal", "unavailable":
		default: // bad_data of Prometheus, 422 of VictoriaMetrics, …
			return false, nil
		}
	}
	return err == nil, err
}

func (r *Remote) result(expr string, v model.Value, warnings v1.Warnings, err error) (Result, error) {
	if err != nil {
		// Of a server error the client keeps the body apart: it has the cause.
		var answer struct{ Error string }
		if e, ok := errors.AsType[*v1.Error](err); ok && json.Unmarshal([]byte(e.Detail), &answer) == nil && answer.Error != "" {
			err = fmt.Errorf("%w: %s", err, answer.Error)
		}
		return Result{}, fmt.Errorf("query %q at %s: %w", expr, r.url.Redacted(), err)
	}
	out := Result{Type: ResultType(v.Type().String()), Warnings: warnings}
	switch v := v.(type) {
	case model.Vector:
		out.Samples = make([]Sample, 0, len(v))
		for _, s := range v {
			sample := Sample{Labels: metricMap(s.Metric), Time: s.Timestamp.Time(), Value: float64(s.Value)}
			if s.Histogram != nil {
				sample.Value, sample.Histogram = float64(s.Histogram.Count), s.Histogram.String()
			}
			out.Samples = append(out.Samples, sample)
		}
	case model.Matrix:
		out.Series = make([]Series, 0, len(v))
		for _, s := range v {
			series := Series{Labels: metricMap(s.Metric)}
			for _, p := range s.Values {
				series.Points = append(series.Points, Point{p.Timestamp.Time(), float64(p.Value)})
			}
			for _, p := range s.Histograms {
				series.Points = append(series.Points, Point{p.Timestamp.Time(), float64(p.Histogram.Count)})
			}
			out.Series = append(out.Series, inOrder(series, len(s.Values)))
		}
	case *model.Scalar:
		out.Samples = []Sample{{Labels: map[string]string{}, Time: v.Timestamp.Time(), Value: float64(v.Value)}}
	case *model.String:
		out.Text = v.Value
	default:
		return Result{}, fmt.Errorf("query %q: values of type %s are not supported", expr, v.Type())
	}
	return out, nil
}

func metricMap(m model.Metric) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[string(k)] = string(v)
	}
	return out
}
