package proxy

import (
	"sync"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/proxy/http1"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

// exchange is the state of one HTTP/1 request and its response. It is pooled:
// a connection holds one only from the first byte of a request until it waits
// for the next.
type exchange struct {
	req     http1.Request
	res     http1.Response
	reqBody http1.Body
	resBody http1.Body
	head    Head
	out     []byte          // the head being sent, with what body is at hand: first upstream, then downstream
	answer  upstream.Buffer // read from the upstream, not yet used
	scratch []byte          // small texts that head points to

	routed routed
	rec    telemetry.Record

	// What is needed of req after its memory may have been given back.
	isHead, isConnect, repeatable, upgrade, http10 bool

	// last is set while out holds the rest of the response, which is sent when the
	// connection turns to the client again: one turn for the write and the next read.
	last bool
	// unfinished is set from the last write of the response until it is known
	// whether the client was still there to take it.
	unfinished bool
	started    bool   // a byte of the final response was sent downstream
	closing    bool   // the client connection ends with this exchange
	sentBefore uint64 // bytes that the client's connection had carried to it before
	sentAt     int64  // telemetry.Now() before the request was written
	deadline   int64  // of the whole request, telemetry.Now(); 0 is none
}

// keptOut is how much of out's memory a pooled exchange keeps.
const keptOut = 16 << 10

//nolint:gochecknoglobals // a pool of plain memory has no owner
var exchanges = sync.Pool{New: func() any { return &exchange{out: make([]byte, 0, 4<<10)} }}

func takeExchange() *exchange {
	return exchanges.Get().(*exchange)
}

// free puts x back. Its record must be finished.
func (x *exchange) free() {
	x.answer.Release()
	x.answer.Prefer(false)
	if cap(x.out) > keptOut {
		x.out = make([]byte, 0, 4<<10)
	}
	x.head, x.routed, x.rec = Head{}, routed{}, telemetry.Record{}
	exchanges.Put(x)
}

// begin makes x ready for the next request; free has cleared what points elsewhere.
func (x *exchange) begin() {
	x.out = x.out[:0]
	x.req.Clear()
	x.isHead, x.isConnect, x.http10, x.upgrade, x.repeatable = false, false, false, false, false
	x.reqBody.Start(http1.NoBody, 0)
	x.last, x.unfinished, x.started, x.closing = false, false, false, false
	x.sentAt, x.deadline = 0, 0
	x.answer.Prefer(false)
}

// keep remembers what is needed of the request after its head is gone.
func (x *exchange) keep() {
	r := &x.req
	x.isHead, x.isConnect, x.http10 = r.IsHead(), r.IsConnect(), r.Minor == 0
	x.upgrade = r.Upgrade != nil
	x.repeatable = idempotent(r.Method)
}

// fail sets the flags and the detail of the record.
func (x *exchange) fail(f *failure) {
	x.rec.Flags |= f.flags
	x.rec.Detail = f.detail
}

func durationOf(nanos int64) time.Duration { return time.Duration(nanos) }
