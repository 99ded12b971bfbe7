package proxy

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"syscall"

	"github.com/vitrine-mesh/vitrine/internal/detect"
	"github.com/vitrine-mesh/vitrine/internal/proxy/http1"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

// serveHTTP serves a connection that is declared to speak HTTP: HTTP/2 if it
// opens with the preface, else HTTP/1. Bytes read so far are in c.in.
func (c *conn) serveHTTP(ctx context.Context) {
	for {
		have := c.in.Bytes()
		n := min(len(have), len(detect.HTTP2Preface))
		if n == len(detect.HTTP2Preface) && string(have[:n]) == detect.HTTP2Preface {
			c.serveHTTP2(ctx)
			return
		}
		if n > 0 && string(have[:n]) != detect.HTTP2Preface[:n] || n > 3 && n == len(detect.HTTP2Preface) {
			break
		}
		if n > 0 {
			c.enterHead()
		}
		if _, err := c.down.Read(&c.in, nil); err != nil && !c.carriesOn(err) {
			return
		}
	}
	h := http1Conn{conn: c}
	h.sent, h.parked = h.onSent, h.onParked
	h.serve(ctx)
}

// enterHead notes that part of a head has arrived, once.
func (c *conn) enterHead() {
	if phase(c.watch.phase.Load()) != phaseHead {
		c.watch.set(phaseHead, telemetry.Now())
	}
}

// carriesOn reports whether a read that failed with err was only woken without
// a reason that still holds.
func (c *conn) carriesOn(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || c.watch.verdict.Load() != 0 || c.watch.forced.Load() {
		return false
	}
	c.down.Resume()
	return true
}

// http1Conn serves the HTTP/1 requests of one connection, strictly one after
// the other. Only the serving goroutine touches it, and a bodyPump while one
// runs.
type http1Conn struct {
	*conn
	x      *exchange // nil while waiting for a request
	sent   func()    // onSent and
	parked func()    // onParked, made once

	entered *upstream.Endpoint // which counts the request that is being forwarded
}

func (h *http1Conn) serve(ctx context.Context) {
	for h.one(ctx) {
	}
	h.settle(h.refused())
}

// one serves one request; it reports whether another may follow.
func (h *http1Conn) one(ctx context.Context) bool {
	n, err := h.readHead()
	if n == 0 && err == nil {
		return false
	}
	if h.x == nil {
		h.x = takeExchange()
	}
	x := h.x
	x.begin()
	x.sentBefore = h.down.Written()
	start := h.watch.since.Load()
	if err == nil {
		err = x.req.Parse(h.in.Bytes()[:n])
	}
	h.refresh()
	if err != nil {
		h.refuse(start, err)
		return false
	}
	h.fillHead()
	x.keep()
	h.account(start, n)
	x.routed = h.route(&x.head)
	x.rec.Edge, x.rec.Route = x.routed.edge, x.routed.route
	x.closing = !x.req.KeepAlive || h.p.draining[h.dir].on.Load()
	x.reqBody.Start(x.req.Framing, x.req.Length)
	if x.routed.failure != nil {
		h.in.Skip(n)
		h.answerLocally(x.routed.failure)
		return h.finishLocal()
	}
	x.rec.Cluster = x.routed.cluster.Name
	h.writeRequestHead()
	h.in.Skip(n)
	return h.forwardRequest(ctx)
}

// readHead waits for a complete head at the front of h.in and returns its
// length. 0 without an error means that the connection is over.
func (h *http1Conn) readHead() (int, error) {
	var scan http1.HeadScanner
	first := true
	for {
		if h.in.Len() > 0 {
			h.settle(false)
			if first {
				h.watch.set(phaseHead, telemetry.Now())
				first = false
			}
			// RFC 9112, 2.2: an empty line before a request is ignored.
			if b := h.in.Bytes(); len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
				h.in.Skip(2)
				scan = http1.HeadScanner{}
				continue
			}
			n, err := scan.Scan(h.in.Bytes())
			if n > 0 || err != nil {
				return n, err
			}
			if !h.in.MakeRoom() {
				return 0, http1.ErrHeadTooLarge
			}
		} else if first && (h.x == nil || !h.x.last) {
			h.watch.set(phaseIdle, h.endOfLast())
		}
		if err := h.hear(); err != nil {
			if h.carriesOn(err) {
				continue
			}
			if errors.Is(err, errClientGone) {
				return 0, nil
			}
			h.settle(h.refused()) // also of a client that the reaper found gone
			if verdict(h.watch.verdict.Load()) == verdictSlow && h.in.Len() > 0 {
				return 0, errHeadTimeout
			}
			return 0, nil
		}
	}
}

// hear reads from the client once more, after it has sent what is left of the last
// response. errClientGone means that the client did not take that.
func (h *http1Conn) hear() error {
	x := h.x
	if x == nil || !x.last {
		_, err := h.down.Read(&h.in, h.parked)
		return err
	}
	size := len(x.out)
	written, _, err := h.down.Answer(x.out, &h.in, h.sent, h.parked)
	if written == size { // x may be another's by now
		return err
	}
	x.last = false
	h.sentSome(written)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		err = h.gone(err)
	} else {
		err = h.send(x.out[written:])
	}
	if err != nil {
		h.abandon()
		return err
	}
	x.rec.End = telemetry.Now()
	return nil
}

// onSent is called when the last of the response has been written.
func (h *http1Conn) onSent() {
	x := h.x
	x.last = false
	h.sentSome(len(x.out))
	x.rec.End = telemetry.Now()
	h.watch.set(phaseIdle, x.rec.End)
}

// endOfLast is when the last exchange ended, or now if that is not known: a read
// of the clock less per request.
func (h *http1Conn) endOfLast() int64 {
	if h.x != nil && h.x.unfinished && h.x.rec.End != 0 {
		return h.x.rec.End
	}
	return telemetry.Now()
}

// errHeadTimeout is answered with 408.
var errHeadTimeout = errors.New("the request head did not arrive in time")

// onParked is called when no further request is there yet, and the connection
// is about to wait.
func (h *http1Conn) onParked() { h.settle(false) }

// refused reports whether the client had closed the connection before anything
// of the response reached it: to a socket that was closed the kernel answers with
// a reset, which after the client's end is EPIPE.
func (h *http1Conn) refused() bool {
	return errors.Is(h.down.SocketError(), syscall.EPIPE) && (h.x == nil || h.untaken())
}

// untaken reports whether nothing of the response has reached the client, now
// that its socket has refused some of it. What came before its end its kernel has
// acknowledged, be it only the head: that it had got.
func (h *http1Conn) untaken() bool {
	taken, err := h.down.Acknowledged()
	return err != nil || taken <= h.x.sentBefore
}

// settle finishes the record of the last exchange and gives its memory back,
// if that has not been done: nobody may look at the exchange afterwards. Who was refused got no response.
//
// The record waits for this because a client that gave up and closed its socket
// looks like one that half-closed it, until the response is refused.
func (h *http1Conn) settle(refused bool) {
	x := h.x
	if x == nil {
		return
	}
	if x.unfinished {
		x.unfinished = false
		if refused {
			x.rec.Code = 0
			x.rec.Flags |= telemetry.FlagDC
			x.rec.Detail = detailClientGone
		}
		x.rec.Finish()
	}
	h.x = nil
	x.free()
}

const (
	detailVia        = "via_upstream"
	detailClientGone = "downstream_remote_disconnect"
)

// fillHead makes the codec-neutral head.
func (h *http1Conn) fillHead() {
	x := h.x
	r := &x.req
	x.scratch = x.scratch[:0]
	if len(r.Authority) == 0 { // HTTP/1.0 without Host: the address stands for it
		x.scratch = h.local.AppendTo(x.scratch)
		r.SetAuthority(x.scratch)
	}
	if len(r.RequestID) == 0 {
		from := len(x.scratch)
		x.scratch = appendRequestID(x.scratch)
		x.head.RequestID = x.scratch[from:]
		if from > 0 { // the memory may have moved
			r.SetAuthority(x.scratch[:from])
		}
	} else {
		x.head.RequestID = r.RequestID
	}
	x.head.Method, x.head.Authority, x.head.Path = r.Method, r.Authority, r.Path
	x.head.UserAgent, x.head.GRPC = r.UserAgent, isGRPC(r.ContentType)
}

// account begins the record.
func (h *http1Conn) account(start int64, headBytes int) {
	x := h.x
	x.rec = h.p.o.Recorder.Begin(h.dir, start)
	x.rec.SetRequest(x.head.Method, x.head.Path, x.head.Authority, x.head.UserAgent)
	x.rec.SetRequestID(x.head.RequestID)
	if len(x.req.ForwardedFor) > 0 {
		x.rec.SetForwardedFor(x.req.ForwardedFor)
	}
	x.rec.Version = "HTTP/1.1"
	if x.req.Minor == 0 {
		x.rec.Version = "HTTP/1.0"
	}
	x.rec.Downstream, x.rec.DownstreamLocal = h.source, h.local
	x.rec.BytesReceived = uint64(headBytes)
	if x.head.GRPC {
		x.rec.Protocol = telemetry.GRPC
	}
}

// writeRequestHead writes what goes upstream into x.out.
func (h *http1Conn) writeRequestHead() {
	x := h.x
	x.out = x.req.AppendHead(x.out[:0])
	if len(x.req.RequestID) == 0 {
		x.out = append(x.out, "x-request-id: "...)
		x.out = append(x.out, x.head.RequestID...)
		x.out = append(x.out, "\r\n"...)
	}
	if !x.req.HasForwardedProto() {
		x.out = append(x.out, "x-forwarded-proto: http\r\n"...)
	}
	x.out = append(x.out, "\r\n"...)
}

// appendRequestID writes a random UUID (RFC 9562, version 4).
func appendRequestID(dst []byte) []byte {
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], random()&^0xf000|0x4000)
	binary.BigEndian.PutUint64(id[8:], random()&^(3<<62)|2<<62)
	dst = hex.AppendEncode(dst, id[:4])
	for from := 4; from < 10; from += 2 {
		dst = append(dst, '-')
		dst = hex.AppendEncode(dst, id[from:from+2])
	}
	dst = append(dst, '-')
	return hex.AppendEncode(dst, id[10:])
}
