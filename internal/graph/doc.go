// Package graph builds the service graph of a window of time from istio_*
// metrics: which workload calls which, how much, how well and how fast.
//
// It hides how two reporters become one truth. Every request between two
// proxies is counted by both; an edge takes the figures of the destination's
// proxy, adds what only the source's proxy can know (requests that never
// arrived: response flags UF, UH, UO, NR, NC, FI, RL), and takes the source's
// figures alone where the destination has no proxy. Nothing is counted twice,
// and an edge without traffic in the window does not exist.
//
// Of a request with another flag the metrics do not tell whether it arrived: a
// client that goes away (DC) or a deadline that ends (UT) while the source's proxy
// still connects is in istio_requests_total of the source, but not in an edge
// that has figures of the destination.
//
// Counts are exact: they are differences of counter values (increase() with the
// anchored modifier), not the extrapolation that a plain increase() makes.
// Counters of new series start with a zero sample at their created timestamp,
// so the first requests of an edge count too. A count covers what was scraped
// in the window: from the last scrape at or before its start to the last scrape
// at or before its end. Servers that do not know the modifier are asked with
// Options.Extrapolate.
//
// Health follows Kiali's thresholds for edges: an error share of 0.1 % is
// degraded, 20 % is failure. Errors are responses 5xx, requests without a
// response (code 0), responses of any code that the destination broke off (response
// flags UC, UR and the like, which Kiali shows but does not count), and gRPC calls
// with a status other than 0. A node is judged by the worse of all requests that it
// gets and all that it sends, as in Kiali (business/health_calculator.go).
//
// Build is a pure function of the answers to its queries (at most five); all
// values are the caller's. Everything here is safe for concurrent use.
package graph
