// Package telemetry turns every request and every connection that the proxy
// handled into Istio's metrics (istio_requests_total and its relatives) and
// into an access log.
//
// It hides how label sets are derived from the two ends of an edge, how series
// are found without allocation, how they are kept exact under concurrency,
// when they are reported and evicted, and how they are written out.
//
// Invariants:
//   - Each Record and each Conn is counted exactly once, by its first Finish;
//     a second Finish changes nothing but a counter of its own.
//   - No observation is lost to eviction: a series is retired by one atomic
//     step that fails when an observation came first, and observations that
//     come later find or make a new series.
//   - In one exposition the count of a histogram is the sum of its buckets,
//     and no label set occurs twice in a family.
//
// A Recorder and its Edges may be used by any number of goroutines. A Record
// belongs to one goroutine at a time, except for its message counters.
package telemetry
