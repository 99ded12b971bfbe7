// Package metricstore is the embedded Prometheus: it scrapes targets, keeps
// samples on disk, evaluates PromQL and rules, sends samples on by remote write
// and answers Prometheus's HTTP API.
//
// It hides github.com/prometheus/prometheus completely: no type of that module
// is part of this package's API, and no other package may import it. It knows
// nothing of services or meshes; targets and rules come from the caller.
//
// Invariants:
//   - Counters are exact. A series that a target creates between two scrapes
//     is stored with a zero sample at its created timestamp (OpenMetrics
//     _created, protobuf created_timestamp), so increase() sees its first
//     increments; AppendFinal stores what a target counted after its last scrape.
//   - Samples of one series never go back in time: a clock that is set back
//     loses samples until it has caught up, but never fakes a counter reset.
//   - Damaged files never keep the store from opening: what cannot be read is
//     put aside in the directory "damaged", reported, and left out.
//   - Too little disk space stops writing, not reading, and mends itself.
//
// A Store is safe for concurrent use. Open makes it, Run keeps it working and
// closes it; a Store that is not run must be closed. It is queried through its
// Handler, by a Remote.
package metricstore
