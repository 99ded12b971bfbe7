package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
)

// printChart draws each series as one row of eighth blocks over its own scale.
// All rows have the same columns of time, which the last line tells; a column
// without a point is empty.
func printChart(out, errOut io.Writer, r *daemon.QueryResult) error {
	var first, last time.Time
	for _, s := range r.Series {
		for _, p := range s.Points {
			if first.IsZero() || p.Time.Before(first) {
				first = p.Time
			}
			if p.Time.After(last) {
				last = p.Time
			}
		}
	}
	if first.IsZero() {
		fmt.Fprintln(errOut, "no data")
		return nil
	}
	for _, s := range r.Series {
		if len(s.Points) == 0 {
			continue
		}
		values := columns(s.Points, first, last, r.Step)
		fmt.Fprintln(out, seriesName(s.Labels, "", "    "))
		fmt.Fprintf(out, "  %s%s  last %s\n", sparkline(values), extremes(values), lastValue(&s))
	}
	_, err := fmt.Fprintln(out, axis(first, last, r.Step))
	return err
}

// axis tells the times of the columns, with their dates if they are not of one day.
func axis(first, last time.Time, step time.Duration) string {
	layout := time.TimeOnly
	if last.Sub(first) >= 24*time.Hour || last.Day() != first.Day() {
		layout = time.DateTime
	}
	text := first.Format(layout)
	if !last.Equal(first) {
		text += " to " + last.Format(layout)
	}
	if step > 0 && !last.Equal(first) {
		text += ", a point every " + (*span)(&step).String()
	}
	return text
}

// columns are the values of points at first and every step after it, NaN where
// there is none; without a step, as of a range within the expression, simply those
// of points.
func columns(points []daemon.QueryPoint, first, last time.Time, step time.Duration) []float64 {
	if step <= 0 {
		values := make([]float64, len(points))
		for i, p := range points {
			values[i] = p.Value
		}
		return values
	}
	at := func(t time.Time) int { return int((t.Sub(first) + step/2) / step) }
	values := make([]float64, at(last)+1)
	for i := range values {
		values[i] = math.NaN()
	}
	for _, p := range points {
		values[at(p.Time)] = p.Value
	}
	return values
}

// sparkline draws values over the scale of the finite ones. A value that is not a
// number is a space; infinities stand at the ends of the scale. What differs only
// by the rounding of its computation is drawn as the same.
func sparkline(values []float64) string {
	const rounding = 1e-9 // of the largest
	levels := []rune("▁▂▃▄▅▆▇█")
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			lo, hi = min(lo, v), max(hi, v)
		}
	}
	// Halves, since hi-lo may be more than a float64 holds.
	half := hi/2 - lo/2
	flat := half <= rounding*max(math.Abs(lo), math.Abs(hi))
	var b strings.Builder
	for _, v := range values {
		switch {
		case math.IsNaN(v):
			b.WriteByte(' ')
		case math.IsInf(v, 1):
			b.WriteRune(levels[len(levels)-1])
		case math.IsInf(v, -1), flat:
			b.WriteRune(levels[0])
		default:
			share := (v/2 - lo/2) / half
			b.WriteRune(levels[min(int(share*float64(len(levels))), len(levels)-1)])
		}
	}
	return b.String()
}

// extremes names the smallest and the largest value, if there is any.
func extremes(values []float64) string {
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if !math.IsNaN(v) {
			lo, hi = min(lo, v), max(hi, v)
		}
	}
	if lo > hi {
		return ""
	}
	return "  min " + formatValue(lo) + "  max " + formatValue(hi)
}
