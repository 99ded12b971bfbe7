package telemetry

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// RequestProtocol is the request_protocol label of a request.
type RequestProtocol uint8

// The protocols of requests.
const (
	HTTP RequestProtocol = iota
	GRPC                 // content-type application/grpc…
)

// String is the label value.
func (p RequestProtocol) String() string {
	if p == GRPC {
		return "grpc"
	}
	return "http"
}

// Fields describe one request. They are set directly, as they become known,
// by the goroutine that owns the Record: rec.Code = 200.
type Fields struct {
	// Edge is whose series the request is counted in. A Record that is finished
	// without one counts on the edge with an unknown peer and service.
	Edge     *Edge
	Protocol RequestProtocol
	// Start and End are Now() at the first byte of the request and after the
	// last byte of the response. End may stay 0: then it is the time of Finish.
	Start, End int64
	// Code is the status sent downstream; 0 if there was no response.
	Code int
	// GRPCStatus is the status of the trailers, or of the head of a response
	// without body; -1 (as Begin sets it) for none: then it is inferred from
	// Code, as Envoy does. It counts for GRPC only.
	GRPCStatus int
	Flags      Flags
	// Detail says in one word why the response is what it is, in Envoy's
	// vocabulary (via_upstream, route_not_found …). It must be a constant.
	Detail string
	// BytesReceived and BytesSent count bytes on the downstream wire, heads
	// and framing included.
	BytesReceived, BytesSent uint64
	// UpstreamWait is how long the proxy waited for the upstream: from the
	// request's last write to the first byte of the response; over HTTP/2 from its
	// first write, connecting included. What remains of the duration of a unary
	// request is the proxy's own time. 0 is unknown.
	UpstreamWait time.Duration

	// For the log only. The strings must live longer than the Record:
	// constants and configuration.
	Version         string // HTTP/1.1, HTTP/2 …
	Route, Cluster  string
	SNI             string
	FailureReason   string // of the upstream transport
	Upstream        netip.AddrPort
	UpstreamLocal   netip.AddrPort
	Downstream      netip.AddrPort
	DownstreamLocal netip.AddrPort
}

// Record is the account of one request, from Begin to Finish: a handle that is
// passed by value. The zero Record accounts for nothing; only Finish, Live and
// the Add methods may be called on it.
//
// After Finish the storage behind it serves another request: nothing may be
// read from or written to a finished Record. A second Finish is noticed by the
// generation in the handle, counted, and otherwise without effect.
type Record struct {
	*account
	gen uint64
}

// account is the pooled storage behind a Record.
type account struct {
	Fields

	r   *Recorder     // set once
	gen atomic.Uint64 // grows by one with each Finish

	direction mesh.Direction
	connType  bool // describes a connection: the log line of a ConnRecord
	live      bool // registered with the recorder
	text      text
	seq       uint64 // position in the log

	requestMessages, responseMessages atomic.Uint64

	// Guarded by mu, which the report takes too.
	mu                                sync.Mutex
	liveEdge                          *Edge
	requestsReported, answersReported uint64
}

// Begin starts the account of one request. start is Now() at its first byte;
// 0 reads the clock. It does not allocate in the steady state.
func (r *Recorder) Begin(d mesh.Direction, start int64) Record {
	a := r.account()
	if start == 0 {
		start = Now()
	}
	a.Fields = Fields{Start: start, GRPCStatus: -1}
	a.direction = d
	a.connType = false
	r.self.inFlight[d&1].Add(1)
	return Record{a, a.gen.Load()}
}

// account takes storage from the pool.
func (r *Recorder) account() *account {
	a, _ := r.pool.Get().(*account)
	if a == nil {
		a = &account{r: r}
	}
	a.text.reset()
	return a
}

// Done reports whether Finish has been called, or the Record is zero.
func (rec Record) Done() bool {
	a := rec.account
	return a == nil || a.gen.Load() != rec.gen
}

// SetRequest copies what the log shows of the request's head, cut to a bounded
// length. nil stands for what is absent.
func (rec Record) SetRequest(method, path, authority, userAgent []byte) {
	t := &rec.text
	t.reset()
	t.set(textMethod, method)
	t.set(textPath, path)
	t.set(textAuthority, authority)
	t.set(textUserAgent, userAgent)
}

// SetRequestID copies x-request-id for the log. SetRequest comes first.
func (rec Record) SetRequestID(id []byte) { rec.text.set(textRequestID, id) }

// SetForwardedFor copies x-forwarded-for for the log. SetRequest comes first.
func (rec Record) SetForwardedFor(v []byte) { rec.text.set(textForwardedFor, v) }

// AddRequestMessages counts n gRPC messages from the client. Any goroutine may
// call it; after Finish it does nothing. (A call that overlaps Finish may go
// either way: whoever finishes should have stopped the counting.)
func (rec Record) AddRequestMessages(n uint64) {
	if !rec.Done() {
		rec.requestMessages.Add(n)
	}
}

// AddResponseMessages counts n gRPC messages to the client, under the same rules.
func (rec Record) AddResponseMessages(n uint64) {
	if !rec.Done() {
		rec.responseMessages.Add(n)
	}
}

// Live has the message counters of a gRPC stream reported at every
// Options.ReportInterval, not only at its end. Edge is set before; if it
// changes, which it may until the first message, Live is called again.
func (rec Record) Live() {
	a := rec.account
	if a == nil || rec.Done() || a.Edge == nil {
		return
	}
	a.mu.Lock()
	a.liveEdge = a.Edge
	a.mu.Unlock()
	if !a.live {
		a.live = true
		a.r.live.addStream(a, rec.gen)
	}
}

// Finish ends the account: it counts the request in the series of its edge and
// writes it to the log. It is called exactly once on every path; the
// fields must be complete. It does not allocate in the steady state.
func (rec Record) Finish() {
	a := rec.account
	if a == nil {
		return
	}
	r := a.r
	if !a.gen.CompareAndSwap(rec.gen, rec.gen+1) {
		r.self.doubleFinish.Add(1)
		return
	}
	r.self.inFlight[a.direction&1].Add(-1)
	if a.End == 0 {
		a.End = Now()
	}
	e := a.Edge
	if e == nil {
		r.self.unattributed.Add(1)
		e = r.unknown[a.direction&1]
		a.Edge = e
	}
	nanos := uint64(max(a.End-a.Start, 0))
	e.enterRequest(keyOf(a.Protocol, a.Code, a.GRPCStatus, a.Flags)).observe(nanos, a.BytesReceived, a.BytesSent)
	r.self.relayed.Add(a.BytesReceived + a.BytesSent)
	if a.UpstreamWait > 0 {
		r.self.proxyTime[a.direction&1].observe(nanos - min(nanos, uint64(a.UpstreamWait)))
	}
	if a.live {
		r.live.removeStream(a)
	}
	if a.live || a.Protocol == GRPC {
		a.mu.Lock()
		a.reportMessages(e)
		a.mu.Unlock()
	}
	r.log.add(a)
}

// reportMessages adds what the message counters grew since the last report.
// The caller holds a.mu.
func (a *account) reportMessages(e *Edge) {
	s := e.enterMessages()
	n := a.requestMessages.Load()
	s.request.Add(n - a.requestsReported)
	a.requestsReported = n
	n = a.responseMessages.Load()
	s.response.Add(n - a.answersReported)
	a.answersReported = n
}

// recycle returns storage whose Record is finished and that nobody reads.
func (r *Recorder) recycle(a *account) {
	if a.live || a.Protocol == GRPC || a.requestMessages.Load() != 0 || a.responseMessages.Load() != 0 {
		a.mu.Lock()
		a.liveEdge = nil
		a.requestsReported, a.answersReported = 0, 0
		a.requestMessages.Store(0)
		a.responseMessages.Store(0)
		a.mu.Unlock()
		a.live = false
	}
	r.pool.Put(a)
}
