package proxy

import (
	"context"
	"errors"
	"io"
	"syscall"

	"github.com/vitrine-mesh/vitrine/internal/proxy/http1"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

// maxInterim is how many 1xx responses may come before the final one.
const maxInterim = 16

// respond relays the response that begins in x.answer. It reports whether the
// connection can serve another request; the record is left to settle.
func (h *http1Conn) respond(ctx context.Context, up *upstream.Conn, pump *bodyPump) bool {
	x := h.x
	now := telemetry.Now()
	x.rec.UpstreamWait = durationOf(now - x.sentAt)
	h.watch.set(phaseBody, now)
	n, err := h.finalHead(up, pump)
	if err != nil {
		h.watch.up.Store(nil)
		up.Discard()
		if pump != nil {
			pump.stop()
			return h.failStreaming(err, pump)
		}
		x.answer.Release()
		return h.fail(h.failureOf(err))
	}
	x.rec.Code, x.rec.Detail = x.res.Code, detailVia
	if x.head.GRPC && x.res.GRPCStatus >= 0 {
		x.rec.GRPCStatus = x.res.GRPCStatus
	}
	if x.res.Code == 101 || x.isConnect && x.res.Code/100 == 2 {
		x.answer.Skip(h.writeResponseHead(n, http1.NoBody))
		return h.tunnel(ctx, up)
	}
	framing := x.res.Framing
	if framing == http1.Chunked || framing == http1.UntilClose {
		framing = http1.Chunked
		if x.http10 {
			framing, x.closing = http1.UntilClose, true
		}
	}
	if pump != nil && !pump.complete() || h.p.draining[h.dir].on.Load() {
		x.closing = true
	}
	x.resBody.Start(x.res.Framing, x.res.Length)
	x.answer.Skip(h.writeResponseHead(n, framing))
	err = h.relayBody(up, pump, framing)
	if x.rec.Code >= 500 && (err == nil || x.started) {
		h.entered.Failed(false)
	}
	return h.complete(up, pump, err)
}

// finalHead reads up to the head of the final response, whose length it
// returns, and forwards interim ones.
func (h *http1Conn) finalHead(up *upstream.Conn, pump *bodyPump) (int, error) {
	x := h.x
	for range maxInterim {
		n, err := h.oneHead(up, pump)
		if err != nil {
			return 0, err
		}
		if err := x.res.Parse(x.answer.Bytes()[:n], x.isHead, x.isConnect); err != nil {
			return 0, err
		}
		if x.res.Code == 101 && (!x.upgrade || x.res.Upgrade == nil || pump != nil) {
			return 0, http1.ErrStatusLine
		}
		if !x.res.Interim() {
			return n, nil
		}
		if !x.http10 {
			x.out = x.res.AppendHead(x.out[:0], http1.NoBody)
			x.out = append(x.out, "\r\n"...)
			sent, err := h.down.Write(x.out)
			x.rec.BytesSent += uint64(sent)
			if err != nil {
				return 0, errClientGone
			}
		}
		x.answer.Skip(n)
	}
	return 0, http1.ErrStatusLine
}

// oneHead reads until a complete head is at the front of x.answer.
func (h *http1Conn) oneHead(up *upstream.Conn, pump *bodyPump) (int, error) {
	x := h.x
	var scan http1.HeadScanner
	for {
		if x.answer.Len() > 0 {
			n, err := scan.Scan(x.answer.Bytes())
			if n > 0 || err != nil {
				return n, err
			}
			if b := x.answer.Bytes(); len(b) >= 5 && string(b[:5]) != "HTTP/" { // it may never end
				return 0, http1.ErrStatusLine
			}
			if !x.answer.MakeRoom() {
				return 0, http1.ErrHeadTooLarge
			}
		}
		if err := h.await(up, pump); err != nil {
			return 0, err
		}
		h.watch.since.Store(telemetry.Now())
	}
}

// writeResponseHead writes the head for the client into x.out and returns n,
// the length of what it came from.
func (h *http1Conn) writeResponseHead(n int, framing http1.Framing) int {
	x := h.x
	x.out = x.res.AppendHead(x.out[:0], framing)
	switch {
	case x.res.Code == 101:
		x.out = appendUpgrade(x.out, x.res.Upgrade)
	case x.isConnect && x.res.Code/100 == 2:
	case x.closing:
		x.out = append(x.out, "Connection: close\r\n"...)
	case x.res.Upgrade != nil:
		x.out = appendUpgrade(x.out, x.res.Upgrade)
	case x.http10:
		x.out = append(x.out, "Connection: keep-alive\r\n"...)
	}
	x.out = append(x.out, "\r\n"...)
	return n
}

func appendUpgrade(dst, to []byte) []byte {
	dst = append(dst, "Connection: Upgrade\r\nUpgrade: "...)
	dst = append(dst, to...)
	return append(dst, "\r\n"...)
}

// bulkBytes is from how much remaining content on large memory is worth it.
const bulkBytes = 2 * upstream.SmallBuffer

// relayBody sends x.out, which holds the head, and then the body; the last of it may be
// left in x.out (x.last). An error is errClientGone if the client's side failed, else the
// upstream's.
func (h *http1Conn) relayBody(up *upstream.Conn, pump *bodyPump, framing http1.Framing) error {
	x := h.x
	if err := h.takeAnswer(framing); err != nil {
		return err
	}
	for {
		if len(x.out) > 0 {
			if x.resBody.Done() && pump == nil && !x.closing && h.in.Len() == 0 {
				x.last = true
				return nil
			}
			if err := h.send(x.out); err != nil {
				return err
			}
			x.out = x.out[:0]
		}
		if x.resBody.Done() {
			return nil
		}
		if x.answer.Len() > 0 && !x.answer.MakeRoom() { // an unfinished trailer line
			return http1.ErrTrailer
		}
		left, known := x.resBody.Remaining()
		x.answer.Prefer(!known || left > bulkBytes)
		if err := h.await(up, pump); err != nil {
			if !errors.Is(err, io.EOF) {
				return err
			}
			if err := x.resBody.EOF(); err != nil {
				return io.ErrUnexpectedEOF
			}
			if framing == http1.Chunked {
				x.out = http1.AppendLastChunk(x.out, nil)
			}
			continue
		}
		if err := h.sendAnswer(framing); err != nil {
			return err
		}
		h.watch.since.Store(telemetry.Now())
	}
}

// takeAnswer appends what has been read of the body to x.out.
func (h *http1Conn) takeAnswer(framing http1.Framing) error {
	x := h.x
	for x.answer.Len() > 0 && !x.resBody.Done() {
		from, to, used, err := x.resBody.Next(x.answer.Bytes())
		if err != nil {
			return err
		}
		if used == 0 {
			break
		}
		x.out = appendContent(x.out, x.answer.Bytes()[from:to], framing)
		x.answer.Skip(used)
	}
	if x.resBody.Done() && framing == http1.Chunked {
		x.out = http1.AppendLastChunk(x.out, x.resBody.Trailer)
	}
	return nil
}

// sendAnswer sends what has been read of the body straight from x.answer.
func (h *http1Conn) sendAnswer(framing http1.Framing) error {
	x := h.x
	from, to, used, err := x.resBody.Next(x.answer.Bytes())
	if err != nil {
		return err
	}
	if used == 0 {
		return nil
	}
	sent, err := writeContent(&h.down, &x.answer, from, to, framing, &x.resBody)
	x.rec.BytesSent += uint64(sent)
	x.answer.Skip(used)
	if err != nil {
		return h.gone(err)
	}
	x.started = true
	return nil
}

// send writes p to the client.
func (h *http1Conn) send(p []byte) error {
	n, err := h.down.Write(p)
	h.sentSome(n)
	if err != nil {
		return h.gone(err)
	}
	return nil
}

// sentSome notes that n bytes of the response were written.
func (h *http1Conn) sentSome(n int) {
	h.x.rec.BytesSent += uint64(n)
	if n > 0 {
		h.x.started = true
	}
}

// gone is errClientGone for the error of a write. The kernel took what was written
// before, but that need not have reached the client.
func (h *http1Conn) gone(err error) error {
	if errors.Is(err, syscall.EPIPE) && h.untaken() {
		h.x.started = false
	}
	return errClientGone
}

// complete ends an exchange whose response has begun. err is why it broke off.
func (h *http1Conn) complete(up *upstream.Conn, pump *bodyPump, err error) bool {
	x := h.x
	h.watch.up.Store(nil)
	var now int64
	if x.last {
		now = h.watch.since.Load() // when the upstream spoke last
	} else if now = telemetry.Now(); err == nil {
		x.rec.End = now
	}
	reusable := err == nil && x.res.KeepAlive && x.answer.Len() == 0
	if pump != nil {
		if !pump.ends() {
			up.Discard() // its write must not wait for who has answered and reads no more
		}
		pump.stop()
		x.rec.BytesReceived += pump.received
		if !pump.complete() {
			reusable, x.closing = false, true
		}
	}
	if reusable {
		up.Doubt(x.res.Framing == http1.NoBody)
		if x.deadline > 0 || up.Interrupted() {
			up.Resume()
		}
		x.routed.endpoint.Put(up, now)
	} else {
		up.Discard()
	}
	x.unfinished = true
	x.answer.Release()
	switch {
	case err == nil:
		if x.closing && (h.in.Len() > 0 || pump != nil && !pump.complete()) {
			h.linger()
			return false // and x is another's by now
		}
		return !x.closing
	case errors.Is(err, errClientGone):
		h.abandon()
	default:
		if _, ok := errors.AsType[http1.RejectError](err); ok && !x.started {
			return h.fail(h.failureOf(err))
		}
		h.breakOff(err)
	}
	return false
}

// breakOff ends a response that the upstream did not complete: the client must
// see that it is not complete.
func (h *http1Conn) breakOff(err error) {
	x := h.x
	var r http1.RejectError
	switch {
	case errors.Is(err, errTimedOut):
		x.rec.Flags |= telemetry.FlagUT
		x.rec.Detail = "response_timeout"
	case errors.Is(err, errStalled):
		x.rec.Flags |= telemetry.FlagSI
		x.rec.Detail = "stream_idle_timeout"
	case errors.As(err, &r):
		x.rec.Flags |= telemetry.FlagUPE
		x.rec.Detail = "upstream_reset_after_response_started{protocol_error}"
		x.rec.FailureReason = r.Error()
	default:
		x.rec.Flags |= telemetry.FlagUC
		x.rec.Detail = "upstream_reset_after_response_started{connection_termination}"
	}
	if !x.started {
		x.rec.Code = 0
	}
	resetOnClose(h.nc) // an orderly end could pass for the end of the body
}

// tunnel sends the head of a 101 or of a successful CONNECT, and then relays
// bytes until both sides have ended.
func (h *http1Conn) tunnel(ctx context.Context, up *upstream.Conn) bool {
	x := h.x
	x.closing, x.unfinished = true, true
	defer func() {
		h.watch.up.Store(nil)
		up.Discard()
	}()
	if h.send(x.out) != nil {
		h.abandon()
		return false
	}
	h.watch.set(phaseOpaque, telemetry.Now())
	h.watch.opaque.Store(true)
	moved := h.relay(ctx, up.NetConn(), x.answer.Bytes(), nil)
	x.rec.BytesSent += moved.sent
	x.rec.BytesReceived += moved.received
	return false
}
