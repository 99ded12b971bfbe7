package proxy

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/proxy/http1"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

// sendStreaming sends a request whose body is still arriving: a second
// goroutine forwards it while this one waits for the response.
func (h *http1Conn) sendStreaming(ctx context.Context) bool {
	up, failed := h.connect(ctx, false)
	if failed != nil {
		return h.fail(failed)
	}
	h.use(up)
	if n, err := up.Write(h.x.out); err != nil {
		up.Discard()
		if n > 0 || !up.Reused() {
			return h.fail(failReset)
		}
		h.p.o.Recorder.Retried("stale_connection") // nothing of it was sent
		if up, failed = h.open(ctx); failed != nil {
			return h.fail(failed)
		}
		h.use(up)
		if _, err := up.Write(h.x.out); err != nil {
			up.Discard()
			return h.fail(failReset)
		}
	}
	pump := &bodyPump{h: h, up: up, body: &h.x.reqBody, framing: h.x.req.Framing, done: make(chan struct{})}
	h.watch.set(phaseUpload, telemetry.Now())
	go pump.run()
	err := h.await(up, pump)
	if err == nil {
		return h.respond(ctx, up, pump)
	}
	h.watch.up.Store(nil)
	up.Discard()
	pump.stop()
	return h.failStreaming(err, pump)
}

// failStreaming ends a request without a response whose body was on its way.
func (h *http1Conn) failStreaming(err error, pump *bodyPump) bool {
	h.x.rec.BytesReceived += pump.received
	h.x.answer.Release()
	if pumpState(pump.state.Load()) == pumpRejected {
		h.entered.Abandoned()
		return h.rejectBody(pump.reject)
	}
	if errors.Is(err, errStalled) && !pump.complete() {
		h.entered.Abandoned()
		h.x.closing = true
		h.answerLocally(failUpload)
		h.linger()
		return false
	}
	return h.fail(h.failureOf(err))
}

// pumpState is how far a bodyPump has come.
type pumpState uint32

const (
	pumpRunning    pumpState = iota
	pumpLast                 // the last bytes are being written or were written
	pumpClientGone           // the client ended before its body did
	pumpRejected             // the body is malformed
	pumpStopped              // the upstream takes no more, or it was told to stop
)

// bodyPump forwards a request body. While it runs it alone reads from the
// client and writes to the upstream, and owns the connection's input buffer.
type bodyPump struct {
	h       *http1Conn
	up      *upstream.Conn
	body    *http1.Body
	framing http1.Framing
	state   atomic.Uint32
	stopped atomic.Bool
	done    chan struct{}

	// To be read after done, or in the state that follows from them.
	reject   http1.RejectError
	received uint64
}

func (b *bodyPump) run() {
	defer close(b.done)
	in := &b.h.in
	in.Prefer(true)
	defer in.Prefer(false)
	for !b.body.Done() {
		if in.Len() > 0 {
			moved, ok := b.forward()
			if !ok {
				return
			}
			if moved {
				continue
			}
			in.MakeRoom()
		}
		if _, err := b.h.down.Read(in, nil); err != nil {
			if !b.woken(err) {
				return
			}
		}
		b.h.watch.since.Store(telemetry.Now())
	}
}

// woken looks at an error of a read from the client; true means that reading
// can go on.
func (b *bodyPump) woken(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		b.h.down.Resume()
		v := verdict(b.h.watch.verdict.Load())
		if b.stopped.Load() || v == verdictSlow || v == verdictGone {
			b.state.Store(uint32(pumpStopped))
			return false
		}
		return true
	}
	b.tell(pumpClientGone)
	return false
}

// tell sets the state and wakes the goroutine that waits for the response.
func (b *bodyPump) tell(s pumpState) {
	b.state.Store(uint32(s))
	b.up.Interrupt()
}

// forward sends what is in the input buffer. moved is false if that is not
// enough to go on with, ok is false at the end of the pump.
func (b *bodyPump) forward() (moved, ok bool) {
	in := &b.h.in
	from, to, used, err := b.body.Next(in.Bytes())
	b.received += uint64(used)
	if err != nil {
		if !errors.As(err, &b.reject) {
			b.reject = http1.ErrTruncated
		}
		b.tell(pumpRejected)
		return false, false
	}
	if used == 0 {
		return false, true
	}
	if b.body.Done() {
		b.state.Store(uint32(pumpLast)) // before the write that may bring the response
		b.h.watch.phase.CompareAndSwap(uint32(phaseUpload), uint32(phaseWait))
	}
	_, err = writeContent(&b.up.Stream, in, from, to, b.framing, b.body)
	in.Skip(used) // whatever became of it: what the body has counted is no next request
	if err != nil {
		b.state.Store(uint32(pumpStopped))
		return false, false
	}
	return true, true
}

// complete reports whether the whole body was handed to the upstream, or is being so.
func (b *bodyPump) complete() bool { return pumpState(b.state.Load()) == pumpLast }

// lastWrite is how long the last write may take once the response is there.
const lastWrite = 250 * time.Millisecond

// ends reports whether the pump has come to its own end, or does so within a moment: the
// response may be there before the write that brought it returns.
func (b *bodyPump) ends() bool {
	select {
	case <-b.done:
		return true
	default:
	}
	if !b.complete() {
		return false
	}
	t := time.NewTimer(lastWrite)
	defer t.Stop()
	select {
	case <-b.done:
		return true
	case <-t.C:
		return false
	}
}

// stop ends the pump and waits for it. If it was not complete the upstream
// connection must have been closed before.
func (b *bodyPump) stop() {
	b.stopped.Store(true)
	b.h.down.Interrupt()
	<-b.done
	b.h.down.Resume()
}
