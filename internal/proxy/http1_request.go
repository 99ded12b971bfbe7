package proxy

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/proxy/http1"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

// Reasons why waiting for an upstream was given up, other than its own errors.
var (
	errClientGone = errors.New("the client has gone")
	errTimedOut   = errors.New("the request took too long")
	errStalled    = errors.New("the body made no progress")
)

// forwardRequest sends the request whose head is in x.out and relays the
// response. It reports whether the connection can serve another request.
func (h *http1Conn) forwardRequest(ctx context.Context) bool {
	x := h.x
	if err := h.takeBody(); err != nil {
		return h.rejectBody(err)
	}
	h.in.ReleaseIfEmpty()
	h.watch.began.Store(x.rec.Start)
	if x.routed.timeout > 0 {
		x.deadline = x.rec.Start + int64(x.routed.timeout)
	}
	h.entered = x.routed.endpoint
	h.entered.Enter()
	defer func() { h.entered.Leave() }() // x may be another's by then
	if x.reqBody.Done() {
		return h.sendWhole(ctx)
	}
	return h.sendStreaming(ctx)
}

// takeBody appends what has been read of the body to x.out, framed anew.
func (h *http1Conn) takeBody() error {
	x := h.x
	if x.req.Framing == http1.NoBody {
		return nil
	}
	for h.in.Len() > 0 && !x.reqBody.Done() {
		from, to, used, err := x.reqBody.Next(h.in.Bytes())
		x.rec.BytesReceived += uint64(used)
		if err != nil {
			return err
		}
		if used == 0 {
			break
		}
		x.out = appendContent(x.out, h.in.Bytes()[from:to], x.req.Framing)
		h.in.Skip(used)
	}
	if x.reqBody.Done() && x.req.Framing == http1.Chunked {
		x.out = http1.AppendLastChunk(x.out, x.reqBody.Trailer)
	}
	return nil
}

// appendContent appends content in the given framing.
func appendContent(dst, content []byte, f http1.Framing) []byte {
	if len(content) == 0 {
		return dst
	}
	if f != http1.Chunked {
		return append(dst, content...)
	}
	dst = http1.AppendChunkHeader(dst, len(content))
	dst = append(dst, content...)
	return append(dst, "\r\n"...)
}

// writeContent writes the bytes start … end of buf, and the end of the body if
// it is done, in one write where possible. It returns how many bytes went out.
func writeContent(to *upstream.Stream, buf *upstream.Buffer, start, end int, f http1.Framing, body *http1.Body) (int, error) {
	if f != http1.Chunked {
		if start == end {
			return 0, nil
		}
		return to.Write(buf.Bytes()[start:end])
	}
	sent := 0
	if start < end {
		var line [http1.MaxChunkHeader]byte
		tail := "\r\n"
		last := body.Done() && len(body.Trailer) == 0
		if last {
			tail = "\r\n0\r\n\r\n"
		}
		n, err := to.Write(buf.Frame(start, end, http1.AppendChunkHeader(line[:0], end-start), tail))
		if err != nil || last {
			return n, err
		}
		sent = n
	}
	if !body.Done() {
		return sent, nil
	}
	n, err := to.Write(http1.AppendLastChunk(make([]byte, 0, 64), body.Trailer))
	return sent + n, err
}

// rejectBody answers a request whose body is malformed.
func (h *http1Conn) rejectBody(err error) bool {
	x := h.x
	var r http1.RejectError
	if !errors.As(err, &r) {
		r = http1.ErrTruncated
	}
	h.p.o.Recorder.Rejected(r.Error())
	x.closing = true
	x.req.Framing = http1.NoBody // nothing more of it can be used
	h.answerLocally(&failure{code: 400, flags: telemetry.FlagDPE, detail: r.Error(), body: r.Error()})
	h.linger()
	return false
}

// connect takes a pooled connection or opens one, to another endpoint if need be. It
// sets x.sentAt. repeatable says whether the request can be sent again if the server
// has closed the pooled connection just now.
func (h *http1Conn) connect(ctx context.Context, repeatable bool) (*upstream.Conn, *failure) {
	x := h.x
	x.sentAt = telemetry.Now()
	if up := x.routed.endpoint.Get(x.sentAt, !repeatable); up != nil {
		x.rec.Upstream = x.routed.endpoint.Addr()
		return up, nil
	}
	return h.open(ctx)
}

// open opens a connection. It waits as long as the route allows for the whole
// request, and no longer than the client does.
func (h *http1Conn) open(ctx context.Context) (*upstream.Conn, *failure) {
	x := h.x
	x.rec.Upstream = x.routed.endpoint.Addr()
	now := telemetry.Now()
	var cancel context.CancelFunc
	if x.deadline > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(x.deadline-now))
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	defer cancel()
	h.watch.giveUp.Store(&cancel)
	defer h.watch.giveUp.Store(nil)
	h.watch.set(phaseWait, now)
	up, err := x.routed.dial(ctx)
	for retries := 0; err != nil && retries < connectRetries && h.elsewhere(ctx, &x.routed.destination, &x.rec, err); retries++ {
		h.entered = x.routed.endpoint
		up, err = x.routed.dial(ctx)
	}
	x.sentAt = telemetry.Now()
	if err == nil {
		return up, nil
	}
	switch {
	case verdict(h.watch.verdict.Load()) == verdictGone, h.watch.forced.Load():
		return nil, failGone
	case x.deadline > 0 && x.sentAt >= x.deadline: // ctx itself may end a moment after the dial
		return nil, failTimeout
	}
	x.rec.FailureReason = err.Error()
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, failTimedOut
	}
	return nil, failConnect
}

// arm sets the deadline of the route, if there is one, for reads of up.
func (x *exchange) arm(up *upstream.Conn) {
	if x.deadline > 0 {
		_ = up.NetConn().SetReadDeadline(time.Now().Add(time.Duration(x.deadline - telemetry.Now()))) // fails only when closed
	}
}

// use makes up the connection that the reaper may interrupt for h.
func (h *http1Conn) use(up *upstream.Conn) {
	h.watch.up.Store(up)
	h.x.rec.UpstreamLocal = up.Local()
	h.watch.set(phaseWait, h.x.sentAt)
	h.x.arm(up)
}

// sendWhole sends a request that is complete in x.out: the fast path.
func (h *http1Conn) sendWhole(ctx context.Context) bool {
	x := h.x
	up, failed := h.connect(ctx, x.repeatable)
	for retry := false; ; retry = true {
		if failed != nil {
			return h.fail(failed)
		}
		h.use(up)
		written, err := h.exchangeFirst(up)
		if err == nil {
			return h.respond(ctx, up, nil)
		}
		h.watch.up.Store(nil)
		up.Discard()
		x.answer.Release()
		stale := up.Reused() && !retry && (written == 0 || x.repeatable)
		if !stale || ownReason(err) {
			return h.fail(h.failureOf(err))
		}
		h.p.o.Recorder.Retried("stale_connection")
		up, failed = h.open(ctx)
	}
}

// exchangeFirst writes x.out and waits for the first bytes of the answer.
func (h *http1Conn) exchangeFirst(up *upstream.Conn) (written int, err error) {
	x := h.x
	for written < len(x.out) {
		var n, got int
		n, got, err = up.Exchange(x.out[written:], &x.answer)
		written += n
		if got > 0 {
			return written, nil
		}
		if err = h.goOn(up, nil, err); err != nil {
			return written, err
		}
	}
	return written, h.await(up, nil)
}

// await reads once more from the upstream into x.answer.
func (h *http1Conn) await(up *upstream.Conn, pump *bodyPump) error {
	for {
		n, err := up.Read(&h.x.answer, nil)
		if n > 0 {
			return nil
		}
		if err = h.goOn(up, pump, err); err != nil {
			return err
		}
	}
}

// goOn looks at an error of a read from the upstream: nil means that the
// goroutine was woken without a reason that holds, and can wait again.
func (h *http1Conn) goOn(up *upstream.Conn, pump *bodyPump, err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	up.Resume() // before the reasons are looked at: a later one interrupts anew
	x := h.x
	switch {
	case h.watch.forced.Load():
		return errClientGone
	case x.deadline > 0 && telemetry.Now() >= x.deadline:
		return errTimedOut
	}
	switch verdict(h.watch.verdict.Load()) {
	case verdictGone:
		return errClientGone
	case verdictSlow:
		return errStalled
	case verdictNone, verdictIdle, verdictDrained:
	}
	if pump != nil {
		switch pumpState(pump.state.Load()) {
		case pumpClientGone:
			return errClientGone
		case pumpRejected:
			return pump.reject
		case pumpRunning, pumpLast, pumpStopped:
		}
	}
	x.arm(up)
	return nil
}

// ownReason reports whether waiting ended for a reason other than the upstream.
func ownReason(err error) bool {
	return errors.Is(err, errClientGone) || errors.Is(err, errTimedOut) || errors.Is(err, errStalled)
}

// failureOf is the answer to a request whose upstream failed with err before
// it answered; nil if there is nobody to answer.
func (h *http1Conn) failureOf(err error) *failure {
	var r http1.RejectError
	switch {
	case errors.Is(err, errClientGone):
		return nil
	case errors.Is(err, errTimedOut), errors.Is(err, errStalled):
		return failTimeout
	case errors.As(err, &r):
		h.x.rec.FailureReason = r.Error()
		return failUpstream
	}
	return failReset
}

// fail ends a request that has no response from the upstream, and reports
// whether the connection can serve another one.
func (h *http1Conn) fail(f *failure) bool {
	if f == nil || f == failGone {
		h.entered.Abandoned()
		h.abandon()
		return false
	}
	h.entered.Failed(f == failTimeout)
	h.answerLocally(f)
	return h.finishLocal()
}

// abandon ends a request whose client has gone before it got a response.
func (h *http1Conn) abandon() {
	x := h.x
	if !x.started {
		x.rec.Code = 0
	}
	x.rec.Flags |= telemetry.FlagDC
	x.rec.Detail = detailClientGone
	x.closing, x.unfinished = true, true
}
