// Package upstream holds the endpoints of a cluster and the connections to
// them: balancing, pools, and single-goroutine socket reads and writes that
// allocate nothing.
//
// It hides how a connection is chosen, kept, checked for staleness and thrown
// away. It knows addresses and bytes, no protocol: what a connection may be
// reused for is decided by the caller, which puts it back only in a state in
// which the next request can be written at once.
//
// Endpoint, Cluster and Sources may be used by any number of goroutines. A Conn
// or Stream belongs to one goroutine at a time; only Close, Interrupt and Probe
// may be called by others.
package upstream
