package metricstore

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/features"
)

// lookbackDelta is how old the newest sample of a series may be and still
// count as its present value (Prometheus's default).
const lookbackDelta = 5 * time.Minute

// newParser knows the anchored and smoothed range modifiers: an anchored
// increase() is the exact difference of two counter values, where the plain
// one extrapolates. Everything else is as in a Prometheus server without
// feature flags.
func newParser() parser.Parser {
	return parser.NewParser(parser.Options{EnableExtendedRangeSelectors: true})
}

// engineOpts are the options of our query engine.
func engineOpts(o Options, reg prometheus.Registerer, fr features.Collector) promql.EngineOpts {
	step := o.EvaluationInterval.Milliseconds()
	return promql.EngineOpts{
		Logger:                   o.Log.With("component", "promql"),
		Reg:                      reg,
		MaxSamples:               o.Limits.MaxSamples,
		Timeout:                  o.Limits.Timeout,
		ActiveQueryTracker:       newQuerySlots(o.Limits.Concurrency),
		LookbackDelta:            lookbackDelta,
		NoStepSubqueryIntervalFn: func(int64) int64 { return step },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		FeatureRegistry:          fr,
		Parser:                   newParser(),
	}
}

// querySlots bounds how many queries run at once. Prometheus's own tracker
// also writes the running queries to a memory-mapped file, which kills the
// process when the disk under it is full.
type querySlots chan struct{}

func newQuerySlots(n int) querySlots { return make(querySlots, n) }

// GetMaxConcurrent implements promql.QueryTracker.
func (q querySlots) GetMaxConcurrent() int { return cap(q) }

// Insert waits for a slot.
func (q querySlots) Insert(ctx context.Context, _ string) (int, error) {
	select {
	case q <- struct{}{}:
		return 0, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Delete gives the slot back.
func (q querySlots) Delete(int) { <-q }

// Close implements io.Closer.
func (q querySlots) Close() error { return nil }

// stringLiteral is the value of an expression of type string. PromQL has nothing
// else of that type than a literal.
func stringLiteral(expr string) (text string, ok bool) {
	if x, is := outermost(expr).(*parser.StringLiteral); is {
		return x.Val, true
	}
	return "", false
}

// outermost is what an expression is, brackets apart; nil if it is none.
func outermost(expr string) parser.Expr {
	e, err := newParser().ParseExpr(expr)
	if err != nil {
		return nil
	}
	for {
		switch x := e.(type) {
		case *parser.ParenExpr:
			e = x.Expr
		case *parser.StepInvariantExpr:
			e = x.Expr
		default:
			return e
		}
	}
}
