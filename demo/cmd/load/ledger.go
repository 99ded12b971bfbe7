package main

import (
	"cmp"
	"slices"
	"sync"
)

// ledger counts requests by kind and status. Status 0 stands for no answer.
type ledger struct {
	mu     sync.Mutex
	counts map[entry]int
}

type entry struct {
	kind string
	code int
}

func newLedger() *ledger { return &ledger{counts: map[entry]int{}} }

func (l *ledger) add(kind string, code int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[entry{kind, code}]++
}

// report is the ledger as it is written.
type report struct {
	Requests []line `json:"requests"` // what load sent to web-app
	Edges    []edge `json:"edges"`    // what follows for the services behind it
	// Exact says that every request was answered as expected, so that Edges
	// counts every HTTP and gRPC request in the shop that is not a probe.
	Exact bool `json:"exact"`
}

type line struct {
	Kind  string `json:"kind"`
	Code  int    `json:"code"`
	Count int    `json:"count"`
}

type edge struct {
	Source      string `json:"source"` // app label of the caller
	Destination string `json:"destination"`
	Count       int    `json:"count"`
}

// call is one call that a request causes somewhere in the shop.
type call struct {
	source, destination string
	times               int
}

// calls lists what each expected answer costs behind web-app. It is the shop's
// programs, read by hand.
func calls(e entry) (list []call, expected bool) {
	switch e {
	case entry{"ready", 200}:
		return nil, true
	case entry{"home", 200}:
		return []call{{"web-app", "recommendations", 1}, {"recommendations", "catalog", 1}}, true
	case entry{"product", 200}:
		return []call{{"web-app", "catalog", 1}, {"catalog", "ratings", 1}}, true
	case entry{"missing", 404}:
		return []call{{"web-app", "catalog", 1}}, true
	case entry{"stock", 200}, entry{"stock", 502}: // version v2 of the catalog fails
		return []call{{"web-app", "catalog", 1}}, true
	case entry{"add", 201}, entry{"cart", 200}:
		return []call{{"web-app", "cart", 1}}, true
	case entry{"checkout", 201}:
		return []call{
			{"web-app", "checkout", 1},
			{"checkout", "cart", 2},
			{"checkout", "currency", 1},
			{"checkout", "shipping", 1},
			{"checkout", "payment", 1},
			{"checkout", "notifier", 1},
		}, true
	case entry{"checkout", 502}: // the payment failed, as switched on
		return []call{
			{"web-app", "checkout", 1},
			{"checkout", "cart", 1},
			{"checkout", "currency", 1},
			{"checkout", "shipping", 1},
			{"checkout", "payment", 1},
		}, true
	case entry{"live", 101}:
		return []call{{"web-app", "notifier", 1}}, true
	}
	return nil, e.kind == "ready"
}

func (l *ledger) report() report {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := report{Exact: true, Requests: []line{}, Edges: []edge{}}
	edges := map[edge]int{}
	for e, n := range l.counts {
		r.Requests = append(r.Requests, line{e.kind, e.code, n})
		edges[edge{Source: "load", Destination: "web-app"}] += n
		list, expected := calls(e)
		r.Exact = r.Exact && expected
		for _, c := range list {
			edges[edge{Source: c.source, Destination: c.destination}] += n * c.times
		}
	}
	for e, n := range edges {
		e.Count = n
		r.Edges = append(r.Edges, e)
	}
	slices.SortFunc(r.Requests, func(a, b line) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Code, b.Code)) })
	slices.SortFunc(r.Edges, func(a, b edge) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Destination, b.Destination))
	})
	return r
}
