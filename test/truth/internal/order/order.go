// Package order is what the truth test tells its load to do, and what it is
// answered.
package order

import "github.com/vitrine-mesh/vitrine/test/truth/internal/ledger"

// Order is one thing to do.
type Order struct {
	Op      string // as in package main of load
	Addr    string // host:port
	Service string // destination_service_name under which it is to be counted
	N       int    // how often, on each connection or in each stream
	Conns   int
	Bytes   int
	Rate    int    // per second
	How     string // of a held request: "abort" or "reset", "before" or "middle"
	Version int    // of HTTP
	Text    string // sent as it is
	Flags   string // under which it is to be counted
	Code    int    // that the answer must have; 0 is any
}

// Answer is what was counted.
type Answer struct {
	Counts []ledger.Count
	Facts  map[string]int
	Errors []string // what should not have happened
}
