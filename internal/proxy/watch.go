package proxy

import (
	"context"
	"sync/atomic"

	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

// phase is what a connection is doing, for time limits and drain.
type phase uint32

const (
	phaseIdle   phase = iota // no request in progress
	phaseHead                // part of a head has arrived
	phaseUpload              // the body of a request is on the move, its response has not begun
	phaseWait                // a request waits for its response
	phaseBody                // a body is on the move
	phaseOpaque              // opaque bytes, or a protocol with its own time limits
)

// watch is the part of a connection that the reaper and Drain look at.
type watch struct {
	phase    atomic.Uint32
	since    atomic.Int64 // telemetry.Now() when the phase began or last made progress
	began    atomic.Int64 // start of the current request, to tell requests apart
	up       atomic.Pointer[upstream.Conn]
	giveUp   atomic.Pointer[context.CancelFunc] // ends connecting; nil when that is not under way
	verdict  atomic.Uint32                      // why the reaper interrupted the connection
	forced   atomic.Bool                        // closed by force
	opaque   atomic.Bool                        // carries bytes that nobody looks into, to its end
	looks    uint32                             // reaper only: how often it looked during this request
	lookedAt int64                              // reaper only: the request that looks belongs to

	halfClosed bool   // reaper only: the client had ended its side at the first look
	absent     uint32 // reaper only: looks in a row at which the client's socket was not there
}

func (w *watch) set(p phase, now int64) {
	w.phase.Store(uint32(p))
	w.since.Store(now)
}

// verdict is why the reaper interrupted a connection.
type verdict uint32

const (
	verdictNone    verdict = iota
	verdictSlow            // the head or a body took too long
	verdictIdle            // nothing was asked for too long
	verdictGone            // the client has gone away
	verdictDrained         // idle while draining
)
