// Command load is the client of the truth test. It reads one request per line
// of its standard input, does what it says, and answers with what it counted on
// the wire. Nothing in it knows of a mesh.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"github.com/vitrine-mesh/vitrine/test/truth/internal/ledger"
	"github.com/vitrine-mesh/vitrine/test/truth/internal/order"
)

// work is what one order counts. Its methods may be called concurrently.
type work struct {
	service string

	mu    sync.Mutex
	tally ledger.Tally
	facts map[string]int
	errs  []string
}

func newWork(service string) *work {
	return &work{service: service, tally: ledger.Tally{}, facts: map[string]int{}}
}

func (w *work) count(protocol string, code int, grpc, flags string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tally[ledger.Entry{Service: w.service, Protocol: protocol, Code: code, GRPC: grpc, Flags: flags}]++
}

func (w *work) fact(name string, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.facts[name] += n
}

// fail notes what should not have happened.
func (w *work) fail(err error) { w.failf("%v", err) }

func (w *work) failf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.errs) < 10 {
		w.errs = append(w.errs, fmt.Sprintf(format, args...))
	}
}

func (w *work) done() order.Answer {
	w.mu.Lock()
	defer w.mu.Unlock()
	return order.Answer{Counts: w.tally.Counts(), Facts: w.facts, Errors: w.errs}
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	l := &loads{running: map[string]*drive{}, conns: map[string][]*tcpConn{}}
	for in.Scan() {
		var o order.Order
		answer := order.Answer{}
		if err := json.Unmarshal(in.Bytes(), &o); err != nil {
			answer.Errors = []string{err.Error()}
		} else {
			answer = l.do(&o)
		}
		if err := out.Encode(answer); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// loads is what lives longer than one order.
type loads struct {
	running map[string]*drive
	conns   map[string][]*tcpConn // TCP connections kept open, by service
}

func (l *loads) do(o *order.Order) order.Answer {
	w := newWork(o.Service)
	switch o.Op {
	case "http1":
		w.http1(o, false)
	case "pipeline":
		w.http1(o, true)
	case "http2":
		w.http2(o)
	case "held":
		w.held(o)
	case "raw":
		w.raw(o)
	case "grpc":
		w.grpc(o)
	case "rate":
		w.rate(o)
	case "drive":
		l.start(o)
	case "halt":
		return l.halt(o)
	case "tcp open":
		l.open(w, o)
	case "tcp talk":
		l.talk(w, o)
	case "tcp close":
		l.close(w, o)
	default:
		w.failf("unknown order %q", o.Op)
	}
	return w.done()
}
