package metricstore

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
)

// evaluate asks the engine of a store that may not be running.
func evaluate(ctx context.Context, s *Store, expr string, at time.Time, use func(*promql.Result) error) error {
	q, err := s.engine.NewInstantQuery(ctx, s.db, nil, expr, at)
	if err != nil {
		return err
	}
	defer q.Close() // the engine uses the result's memory again
	r := q.Exec(ctx)
	if r.Err != nil {
		return r.Err
	}
	return use(r)
}

// vectorIn is the value of an expression, which is a vector, in a store that may not
// be running.
func vectorIn(ctx context.Context, s *Store, expr string, at time.Time) (samples []Sample, err error) {
	err = evaluate(ctx, s, expr, at, func(r *promql.Result) error {
		v, err := r.Vector()
		if err != nil {
			return fmt.Errorf("%s: %w", expr, err)
		}
		for _, each := range v {
			samples = append(samples, Sample{Labels: each.Metric.Map(), Time: time.UnixMilli(each.T), Value: each.F})
		}
		return nil
	})
	return samples, err
}

// pointsIn are the points of an expression that is a matrix, likewise.
func pointsIn(t *testing.T, s *Store, expr string, at time.Time) (points []Point) {
	t.Helper()
	err := evaluate(t.Context(), s, expr, at, func(r *promql.Result) error {
		m, err := r.Matrix()
		for _, each := range m {
			for _, p := range each.Floats {
				points = append(points, Point{time.UnixMilli(p.T), p.F})
			}
		}
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return points
}
