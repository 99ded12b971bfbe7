package metricstore

import (
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Arrange sorts the vector of expr by its labels: a server answers in an order that
// differs from one time to the next. What expr has put in order itself (sort and its
// kin, topk, bottomk) stays as it is.
func Arrange(expr string, vector []Sample) {
	if ordered(expr) {
		return
	}
	type row struct {
		labels labels.Labels
		sample Sample
	}
	rows := make([]row, len(vector))
	for i, s := range vector {
		rows[i] = row{labels.FromMap(s.Labels), s}
	}
	slices.SortStableFunc(rows, func(a, b row) int { return labels.Compare(a.labels, b.labels) })
	for i := range rows {
		vector[i] = rows[i].sample
	}
}

// ordered reports whether expr says in what order the series of its vector are. What
// only another server understands is taken to say so.
func ordered(expr string) bool {
	switch x := outermost(expr).(type) {
	case nil:
		return true
	case *parser.Call:
		return strings.HasPrefix(x.Func.Name, "sort")
	case *parser.AggregateExpr:
		return x.Op == parser.TOPK || x.Op == parser.BOTTOMK
	}
	return false
}
