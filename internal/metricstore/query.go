package metricstore

import (
	"fmt"
	"slices"
	"time"
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

func vectorOf(expr string, r Result, err error) ([]Sample, error) {
	if err != nil {
		return nil, err
	}
	if r.Type != ResultVector && r.Type != ResultScalar {
		return nil, fmt.Errorf("query %q: the value is a %s, not a vector; ask with a range function such as rate(), or for a range of time", expr, r.Type)
	}
	return r.Samples, nil
}

// inOrder sorts the points of a series by time if it has histograms behind the
// given number of plain values.
func inOrder(s Series, floats int) Series {
	if floats > 0 && floats < len(s.Points) {
		slices.SortStableFunc(s.Points, func(a, b Point) int { return a.Time.Compare(b.Time) })
	}
	return s
}
