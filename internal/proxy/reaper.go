package proxy

import (
	"context"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

// Ticks of the reaper. All time limits but those of routes are kept this
// coarsely, which costs a request two stores instead of timers.
const (
	reapTick = 250 * time.Millisecond // connections
	poolTick = 4                      // pools, every so many ticks
)

// reap keeps all time limits until ctx is done.
func (p *Proxy) reap(ctx context.Context) {
	t := time.NewTicker(reapTick)
	defer t.Stop()
	for tick := 0; ; tick++ {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now := telemetry.Now()
		p.reapConns(now)
		if tick%poolTick == 0 {
			p.reapPools(now)
		}
	}
}

func (p *Proxy) reapConns(now int64) {
	half := halfOpens{p: p}
	for _, d := range []mesh.Direction{mesh.Inbound, mesh.Outbound} {
		for _, c := range p.connections(d) {
			c.check(now, &half)
		}
	}
}

func (p *Proxy) reapPools(now int64) {
	p.sources.Reap(now)
	s := p.snap.Load()
	if s == nil {
		return
	}
	seen := map[*upstream.Endpoint]bool{}
	for _, cl := range s.clusters {
		for i := range cl.Members {
			if e := cl.Members[i].Endpoint; !seen[e] {
				seen[e] = true
				e.Reap(now)
			}
		}
	}
}

// check applies the time limits to one connection. Only the reaper calls it.
//
// The goroutine that serves c moves on while this looks: what it decides by an
// outdated phase wakes a goroutine that finds no reason, or ends a connection
// that was at its limit anyway.
func (c *conn) check(now int64, half *halfOpens) {
	w := &c.watch
	age := time.Duration(now - w.since.Load())
	switch phase(w.phase.Load()) {
	case phaseIdle:
		switch {
		case age >= c.p.o.IdleTimeout:
			c.stop(verdictIdle)
		case c.p.draining[c.dir].on.Load() && age >= c.p.o.DrainIdleGrace:
			c.stop(verdictDrained)
		}
	case phaseHead:
		if age >= c.p.o.HeaderTimeout {
			c.stop(verdictSlow)
		}
	case phaseWait:
		c.lookForClient(half)
	case phaseUpload, phaseBody:
		if age >= c.p.o.BodyIdleTimeout {
			c.stop(verdictSlow)
			return
		}
		c.lookForClient(half)
	case phaseOpaque:
	}
}

// absences is at how many looks in a row a client that ended its sending side
// has to have no socket any more: one reading of a table that changes meanwhile
// may miss it.
const absences = 2

// lookForClient finds out whether the client of a request in progress has
// gone. A reset says so. The end of its sending side does not: clients may
// half-close and still want the response. Where it cannot be found out which of
// the two it was, an end that comes with the request is taken for a half, and a
// later one for the end of a client that gave up.
func (c *conn) lookForClient(half *halfOpens) {
	w := &c.watch
	if began := w.began.Load(); began != w.lookedAt {
		w.lookedAt, w.looks, w.halfClosed, w.absent = began, 0, false, 0
	}
	w.looks++
	switch c.down.Probe() {
	case upstream.Broken:
		c.stop(verdictGone)
	case upstream.Ended:
		open, known := half.wants(c)
		switch {
		case open:
			w.absent = 0
		case known:
			if w.absent++; w.absent >= absences {
				c.stop(verdictGone)
			}
		case w.looks == 1:
			w.halfClosed = true
		case !w.halfClosed:
			c.stop(verdictGone)
		}
	case upstream.Quiet, upstream.Readable:
	}
}

// stop makes the goroutine of c end what it does, for the reason v.
func (c *conn) stop(v verdict) {
	c.watch.verdict.Store(uint32(v))
	if v == verdictSlow && phase(c.watch.phase.Load()) == phaseBody {
		_ = c.nc.SetWriteDeadline(time.Unix(1, 0)) // a client that takes nothing; fails only when closed
	}
	c.down.Interrupt()
	if cancel := c.watch.giveUp.Load(); cancel != nil {
		(*cancel)()
	}
	if up := c.watch.up.Load(); up != nil {
		up.Interrupt()
	}
}
