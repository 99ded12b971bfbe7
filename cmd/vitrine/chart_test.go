package main

import (
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
)

func TestSparkline(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	for name, c := range map[string]struct {
		values          []float64
		chart, extremes string
	}{
		"rises":         {[]float64{0, 1, 2, 3, 4, 5, 6, 7}, "▁▂▃▄▅▆▇█", "  min 0  max 7"},
		"constant":      {[]float64{3, 3}, "▁▁", "  min 3  max 3"},
		"rounded":       {[]float64{0.975, 0.9750000000000001, 0.975}, "▁▁▁", "  min 0.975  max 0.975"},
		"gap":           {[]float64{0, nan, 2}, "▁ █", "  min 0  max 2"},
		"division by 0": {[]float64{1, inf, 2}, "▁██", "  min 1  max +Inf"},
		"below":         {[]float64{-inf, 1, 2}, "▁▁█", "  min -Inf  max 2"},
		"infinite only": {[]float64{inf, inf}, "██", "  min +Inf  max +Inf"},
		"no number":     {[]float64{nan, nan}, "  ", ""},
		"wide":          {[]float64{-math.MaxFloat64, 0, math.MaxFloat64}, "▁▅█", "  min -1.79769e+308  max 1.79769e+308"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := sparkline(c.values); got != c.chart {
				t.Errorf("chart %q, want %q", got, c.chart)
			}
			if got := extremes(c.values); got != c.extremes {
				t.Errorf("extremes %q, want %q", got, c.extremes)
			}
		})
	}
}

// Series that begin later, or have a gap, stand in the same columns of time.
func TestPrintChart(t *testing.T) {
	at := func(second int) time.Time { return time.Date(2026, 1, 2, 15, 4, second, 0, time.Local) }
	row := func(name string, values map[int]float64) daemon.QuerySeries {
		s := daemon.QuerySeries{Labels: map[string]string{"pod": name}}
		for _, second := range slices.Sorted(maps.Keys(values)) {
			s.Points = append(s.Points, daemon.QueryPoint{Time: at(second), Value: values[second]})
		}
		return s
	}
	for _, c := range []struct {
		name string
		in   daemon.QueryResult
		want string
	}{
		{"columns", daemon.QueryResult{Step: 5 * time.Second, Series: []daemon.QuerySeries{
			row("whole", map[int]float64{0: 1, 5: 2, 10: 3, 15: 4}),
			row("late", map[int]float64{10: 1, 15: 1}),
			row("none", nil),
			row("gap", map[int]float64{0: 0, 15: 2}),
		}}, `{pod="whole"}
  ▁▃▆█  min 1  max 4  last 4
{pod="late"}
    ▁▁  min 1  max 1  last 1
{pod="gap"}
  ▁  █  min 0  max 2  last 2
15:04:00 to 15:04:15, a point every 5s
`},
		{"instant", daemon.QueryResult{Series: []daemon.QuerySeries{row("one", map[int]float64{7: 3})}}, `{pod="one"}
  ▁  min 3  max 3  last 3
15:04:07
`},
		{"range within", daemon.QueryResult{Series: []daemon.QuerySeries{row("one", map[int]float64{7: 3, 12: 4, 17: 5})}}, `{pod="one"}
  ▁▅█  min 3  max 5  last 5
15:04:07 to 15:04:17
`},
		{"days", daemon.QueryResult{Step: 12 * time.Hour, Series: []daemon.QuerySeries{row("one", map[int]float64{0: 3, 24 * 3600: 4})}}, `{pod="one"}
  ▁ █  min 3  max 4  last 4
2026-01-02 15:04:00 to 2026-01-03 15:04:00, a point every 12h
`},
		{"nothing", daemon.QueryResult{}, "no data\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			if err := printChart(&out, &out, &c.in); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, out.String()); diff != "" {
				t.Errorf("chart (-want +got):\n%s", diff)
			}
		})
	}
}
