package main

import (
	"math"
	"testing"

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
		"gap":           {[]float64{0, nan, 2}, "▁ █", "  min 0  max 2"},
		"division by 0": {[]float64{1, inf, 2}, "▁██", "  min 1  max +Inf"},
		"below":         {[]float64{-inf, 1, 2}, "▁▁█", "  min -Inf  max 2"},
		"infinite only": {[]float64{inf, inf}, "██", "  min +Inf  max +Inf"},
		"no number":     {[]float64{nan, nan}, "  ", ""},
		"wide":          {[]float64{-math.MaxFloat64, 0, math.MaxFloat64}, "▁▅█", "  min -1.79769e+308  max 1.79769e+308"},
	} {
		t.Run(name, func(t *testing.T) {
			var points []daemon.QueryPoint
			for _, v := range c.values {
				points = append(points, daemon.QueryPoint{Value: v})
			}
			if got := sparkline(points); got != c.chart {
				t.Errorf("chart %q, want %q", got, c.chart)
			}
			if got := extremes(points); got != c.extremes {
				t.Errorf("extremes %q, want %q", got, c.extremes)
			}
		})
	}
}
