package graph

import (
	"maps"
	"math"
	"slices"
)

// latency reads quantiles off cumulative buckets; nil if they are empty.
func latency(buckets map[float64]float64) *Latency {
	bounds := slices.Sorted(maps.Keys(buckets))
	if len(bounds) < 2 || !math.IsInf(bounds[len(bounds)-1], 1) {
		return nil
	}
	counts := make([]float64, len(bounds))
	for i, b := range bounds {
		counts[i] = buckets[b]
		if i > 0 {
			// Scrapes of replicas differ in time and bounds may differ between
			// versions: keep the counts cumulative all the same.
			counts[i] = max(counts[i], counts[i-1])
		}
	}
	if counts[len(counts)-1] == 0 {
		return nil
	}
	return &Latency{
		P50: quantile(0.50, bounds, counts), P90: quantile(0.90, bounds, counts),
		P95: quantile(0.95, bounds, counts), P99: quantile(0.99, bounds, counts),
	}
}

// quantile interpolates within the bucket that holds the q-th value, as
// histogram_quantile() does: linearly, from zero in the first bucket, and never
// above the highest finite bound.
func quantile(q float64, bounds, counts []float64) float64 {
	last := len(bounds) - 1
	rank := q * counts[last]
	i, _ := slices.BinarySearch(counts, rank)
	if i >= last {
		return bounds[last-1]
	}
	low, below := 0.0, 0.0
	if i > 0 {
		low, below = bounds[i-1], counts[i-1]
	} else if bounds[0] <= 0 {
		return bounds[0]
	}
	return low + (bounds[i]-low)*(rank-below)/(counts[i]-below)
}
