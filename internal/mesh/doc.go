// Package mesh is the vocabulary of Vitrine: services, workloads, endpoints,
// the immutable Snapshot of a whole mesh and the NodeConfig of one proxy.
//
// It hides nothing and decides nothing: every type is a plain value that other
// packages agree on. Values handed out inside a Snapshot or NodeConfig are
// shared and must not be changed by anyone after publication; they may then be
// read by any number of goroutines.
package mesh
