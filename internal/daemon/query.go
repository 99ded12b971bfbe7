package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/graph"
	"github.com/vitrine-mesh/vitrine/internal/metricstore"
)

// Query is one PromQL question from the command line.
type Query struct {
	URL   string // base URL of a Prometheus-compatible server; "" is the mesh's own
	Expr  string
	At    time.Time     // instant, or end of the range
	Range time.Duration // 0 asks for one instant
	Step  time.Duration // 0 chooses a 60th of Range, at least a second
}

// QueryResult is the answer: the series of a vector or matrix, or one series
// without labels for a scalar or string.
type QueryResult struct {
	Type     string // vector, matrix, scalar or string
	Series   []QuerySeries
	Warnings []string
	At       time.Time     // the instant, or the end of the range
	Step     time.Duration // of a range: the distance of its points; else 0
}

// QuerySeries is one labelled row of points in time order: of a vector or scalar
// exactly one.
type QuerySeries struct {
	Labels map[string]string
	Points []QueryPoint
	Text   string // a string result, which has no points
}

// MarshalJSON writes the result as Prometheus does, in the field "data" of its
// answer (prometheus.io/docs, HTTP API, "expression query result formats").
func (r *QueryResult) MarshalJSON() ([]byte, error) {
	out := struct {
		Type     string   `json:"resultType"`
		Result   any      `json:"result"`
		Warnings []string `json:"warnings,omitempty"`
	}{Type: r.Type, Warnings: r.Warnings}
	switch metricstore.ResultType(r.Type) {
	case metricstore.ResultScalar:
		out.Result = r.Series[0].Points[0]
	case metricstore.ResultString:
		out.Result = [2]any{unixSeconds(r.At), r.Series[0].Text}
	default:
		rows := make([]map[string]any, 0, len(r.Series))
		for _, s := range r.Series {
			row := map[string]any{"metric": s.Labels}
			if metricstore.ResultType(r.Type) == metricstore.ResultMatrix {
				row["values"] = s.Points
			} else {
				row["value"] = s.Points[0]
			}
			rows = append(rows, row)
		}
		out.Result = rows
	}
	return json.Marshal(out)
}

// QueryPoint is one value at one time.
type QueryPoint struct {
	Time  time.Time
	Value float64
}

// MarshalJSON writes [unix seconds, "value"] as Prometheus does, so that NaN
// and infinities survive.
func (p QueryPoint) MarshalJSON() ([]byte, error) {
	return json.Marshal([2]any{unixSeconds(p.Time), FormatValue(p.Value)})
}

// FormatValue writes a sample's value as Prometheus does in its answers: with an
// exponent only if it is smaller than 1e-6, or 1e21 or more
// (prometheus/util/jsonutil, MarshalFloat).
func FormatValue(v float64) string {
	format := byte('f')
	if size := math.Abs(v); size != 0 && (size < 1e-6 || size >= 1e21) {
		format = 'e'
	}
	return strconv.FormatFloat(v, format, -1, 64)
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// RunQuery asks the mesh of runDir, or q.URL.
func RunQuery(ctx context.Context, runDir string, q Query) (*QueryResult, error) {
	remote, err := queryServer(ctx, runDir, q.URL)
	if err != nil {
		return nil, err
	}
	defer remote.Close()
	var r metricstore.Result
	var step time.Duration
	if q.Range > 0 {
		if q.Step <= 0 {
			q.Step = max(q.Range/60, time.Second).Truncate(time.Second)
		}
		step = q.Step
		r, err = remote.EvalRange(ctx, q.Expr, q.At.Add(-q.Range), q.At, q.Step)
	} else {
		r, err = remote.Eval(ctx, q.Expr, q.At)
	}
	if err != nil {
		return nil, err
	}
	metricstore.Arrange(q.Expr, r.Samples)
	out := &QueryResult{Type: string(r.Type), Warnings: r.Warnings, At: q.At, Step: step}
	for _, s := range r.Samples {
		out.Series = append(out.Series, QuerySeries{Labels: s.Labels, Points: []QueryPoint{{s.Time, s.Value}}})
	}
	for _, s := range r.Series {
		row := QuerySeries{Labels: s.Labels}
		for _, p := range s.Points {
			row.Points = append(row.Points, QueryPoint(p))
		}
		out.Series = append(out.Series, row)
	}
	if r.Type == metricstore.ResultString {
		out.Series = append(out.Series, QuerySeries{Labels: map[string]string{}, Text: r.Text})
	}
	return out, nil
}

// queryServer is the server that answers queries for the mesh of runDir.
func queryServer(ctx context.Context, runDir, external string) (*metricstore.Remote, error) {
	if external == "" {
		s, err := NewClient(runDir).Status(ctx)
		if err != nil {
			return nil, err
		}
		external = s.Prometheus
	}
	return metricstore.NewRemote(external)
}

// GraphQuery asks for the service graph of a time window.
type GraphQuery struct {
	URL       string // as in Query
	Window    time.Duration
	At        time.Time // end of the window
	Namespace string    // "" is all
}

// WriteGraph builds the graph and writes it as table, json, dot or mermaid.
func WriteGraph(ctx context.Context, runDir string, q GraphQuery, format string, w io.Writer) error {
	asked := q.Window
	var err error
	if q.Window, err = wholeRounds(ctx, runDir, q); err != nil {
		return err
	}
	g, err := buildGraph(ctx, runDir, q)
	if err != nil {
		return err
	}
	switch format {
	case "table":
		if err := g.WriteTable(w); err != nil || q.Window == asked {
			return err
		}
		_, err := fmt.Fprintf(w, "\nThe window is %s, not %s: whole rounds of scrapes.\n", q.Window, asked)
		return err
	case "json":
		return g.WriteJSON(w)
	case "dot":
		return g.WriteDOT(w)
	case "mermaid":
		return g.WriteMermaid(w)
	}
	return fmt.Errorf("graph format %q: want table, json, dot or mermaid", format)
}

// wholeRounds is the window of q, or the next longer one that is a multiple of the
// scrape interval: counts are those between scrapes, so that of 7 s some would be of
// 5 s and some of 10 s. Another server's interval is not known.
func wholeRounds(ctx context.Context, runDir string, q GraphQuery) (time.Duration, error) {
	if q.URL != "" {
		return q.Window, nil
	}
	s, err := NewClient(runDir).Status(ctx)
	if err != nil || s.ScrapeInterval <= 0 {
		return q.Window, err
	}
	whole := q.Window.Truncate(s.ScrapeInterval)
	if whole < q.Window {
		whole += s.ScrapeInterval
	}
	return whole, nil
}

func buildGraph(ctx context.Context, runDir string, q GraphQuery) (*graph.Graph, error) {
	remote, err := queryServer(ctx, runDir, q.URL)
	if err != nil {
		return nil, err
	}
	defer remote.Close()
	if q.Window < time.Second {
		return nil, errors.New("the window of a graph must be at least a second")
	}
	anchored, err := remote.Understands(ctx, "increase(up[1s] anchored)")
	if err != nil {
		return nil, fmt.Errorf("build graph: %w", err)
	}
	return graph.Build(ctx, samples{remote}, graph.Options{
		Window: q.Window, At: q.At, Namespace: q.Namespace, Extrapolate: !anchored,
	})
}

// samples lends the store's query method to the graph.
type samples struct{ remote *metricstore.Remote }

func (s samples) Query(ctx context.Context, expr string, at time.Time) ([]graph.Sample, error) {
	got, err := s.remote.Query(ctx, expr, at)
	if err != nil {
		return nil, err
	}
	out := make([]graph.Sample, 0, len(got))
	for _, g := range got {
		out = append(out, graph.Sample{Labels: g.Labels, Value: g.Value})
	}
	return out, nil
}
