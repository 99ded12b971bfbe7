// Package proxy is the data plane of one workload: it accepts connections,
// finds out what they speak, forwards requests and bytes, and reports each
// exactly once.
//
// It hides the life of connections and requests: phases, time limits, retries,
// early answers, aborts, drain. It decides nothing about where traffic goes:
// that is the mesh.NodeConfig given to Apply, compiled into one immutable
// snapshot behind an atomic pointer. A request loads the snapshot once.
//
// Invariants:
//   - Every request and every opaque connection makes one telemetry record,
//     which is finished once, on every path.
//   - No byte of a head is forwarded as it came: heads are parsed strictly and
//     written anew (package http1).
//   - A connection is reused only after both messages on it ended cleanly.
//
// An HTTP/1 connection is served by one goroutine for both directions; a second
// one exists only while a request body is not complete. Memory is taken from
// pools when bytes arrive and given back before waiting.
//
// All exported methods of Proxy may be called by any number of goroutines; Run
// and each Apply run one at a time.
package proxy
