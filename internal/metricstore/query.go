package metricstore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// ResultType says which part of a Result is filled in.
type ResultType string

// The result types of PromQL, named as in the HTTP API.
const (
	ResultVector ResultType = "vector"
	ResultMatrix ResultType = "matrix"
	ResultScalar ResultType = "scalar"
	ResultString ResultType = "string"
)

// Result is what an expression evaluates to. It is the caller's.
type Result struct {
	Type     ResultType
	Samples  []Sample // vector; scalar as one sample without labels
	Series   []Series // matrix
	Text     string   // string
	Warnings []string // of the engine: likely mistakes in the expression
}

// Sample is one value of one series.
type Sample struct {
	Labels map[string]string // with __name__ if the expression keeps it
	Time   time.Time
	Value  float64
	// Histogram is a native histogram in Prometheus's notation; Value is then
	// its count. "" for ordinary samples.
	Histogram string
}

// Series is the course of one series.
type Series struct {
	Labels map[string]string
	Points []Point // in order of time
}

// Point is a value at a time; a native histogram appears as its count.
type Point struct {
	Time  time.Time
	Value float64
}

// Eval evaluates an expression at one time.
func (s *Store) Eval(ctx context.Context, expr string, at time.Time) (Result, error) {
	q, err := s.engine.NewInstantQuery(ctx, s.db, nil, expr, at)
	if err != nil {
		return Result{}, fmt.Errorf("query %q: %w", expr, err)
	}
	defer q.Close()
	return result(expr, q.Exec(ctx))
}

// EvalRange evaluates an expression at start, start+step, … up to end.
func (s *Store) EvalRange(ctx context.Context, expr string, start, end time.Time, step time.Duration) (Result, error) {
	if step <= 0 || end.Before(start) {
		return Result{}, fmt.Errorf("query %q: the step must be positive and the end not before the start", expr)
	}
	q, err := s.engine.NewRangeQuery(ctx, s.db, nil, expr, start, end, step)
	if err != nil {
		return Result{}, fmt.Errorf("query %q: %w", expr, err)
	}
	defer q.Close()
	return result(expr, q.Exec(ctx))
}

// Query is Eval for expressions whose value is a vector or a scalar.
func (s *Store) Query(ctx context.Context, expr string, at time.Time) ([]Sample, error) {
	r, err := s.Eval(ctx, expr, at)
	return vectorOf(expr, r, err)
}

// QueryRange is EvalRange for callers that need only the series.
func (s *Store) QueryRange(ctx context.Context, expr string, start, end time.Time, step time.Duration) ([]Series, error) {
	r, err := s.EvalRange(ctx, expr, start, end, step)
	return r.Series, err
}

func vectorOf(expr string, r Result, err error) ([]Sample, error) {
	if err != nil {
		return nil, err
	}
	if r.Type != ResultVector && r.Type != ResultScalar {
		return nil, fmt.Errorf("query %q: the value is a %s, not a vector; ask with a range function such as rate(), or for a range of time", expr, r.Type)
	}
	return r.Samples, nil
}

// result copies a query's result, whose memory the engine uses again.
func result(expr string, res *promql.Result) (Result, error) {
	if res.Err != nil {
		return Result{}, fmt.Errorf("query %q: %w", expr, res.Err)
	}
	out := Result{Type: ResultType(res.Value.Type())}
	for _, w := range res.Warnings.AsErrors() {
		out.Warnings = append(out.Warnings, w.Error())
	}
	switch v := res.Value.(type) {
	case promql.Vector:
		out.Samples = make([]Sample, 0, len(v))
		for _, s := range v {
			sample := Sample{Labels: labelMap(s.Metric), Time: time.UnixMilli(s.T), Value: s.F}
			if s.H != nil {
				sample.Value, sample.Histogram = s.H.Count, s.H.String()
			}
			out.Samples = append(out.Samples, sample)
		}
	case promql.Matrix:
		out.Series = make([]Series, 0, len(v))
		for _, s := range v {
			series := Series{Labels: labelMap(s.Metric)}
			for _, p := range s.Floats {
				series.Points = append(series.Points, Point{time.UnixMilli(p.T), p.F})
			}
			for _, p := range s.Histograms {
				series.Points = append(series.Points, Point{time.UnixMilli(p.T), p.H.Count})
			}
			out.Series = append(out.Series, inOrder(series, len(s.Floats)))
		}
	case promql.Scalar:
		out.Samples = []Sample{{Labels: map[string]string{}, Time: time.UnixMilli(v.T), Value: v.V}}
	case promql.String:
		out.Text = v.V
	default:
		return Result{}, fmt.Errorf("query %q: values of type %s are not supported", expr, parser.DocumentedType(res.Value.Type()))
	}
	return out, nil
}

// inOrder sorts the points of a series by time if it has histograms behind the
// given number of plain values.
func inOrder(s Series, floats int) Series {
	if floats > 0 && floats < len(s.Points) {
		slices.SortStableFunc(s.Points, func(a, b Point) int { return a.Time.Compare(b.Time) })
	}
	return s
}

func labelMap(l labels.Labels) map[string]string {
	m := make(map[string]string, l.Len())
	l.Range(func(l labels.Label) { m[l.Name] = l.Value })
	return m
}
