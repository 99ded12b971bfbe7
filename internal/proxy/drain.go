package proxy

import (
	"context"
	"fmt"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// drainPoll is how often Drain looks whether connections have ended.
const drainPoll = 20 * time.Millisecond

// opaqueGrace is how long Quiesce waits for what it cannot look into: for an exchange
// that is nearly over. The end of a longer one is the program's to say.
const opaqueGrace = time.Second

// Quiesce ends service without losing requests: inbound listeners are closed,
// responses say Connection: close, HTTP/2 connections get a GOAWAY, and what is
// in flight is finished. It returns when no inbound connection is open but opaque and
// upgraded ones, for which it waits less, or when ctx is done. It closes nothing by
// force, and what the program calls goes on.
func (p *Proxy) Quiesce(ctx context.Context) {
	p.beginDrain(mesh.Inbound)
	p.applying.Lock()
	p.unbind()
	p.applying.Unlock()
	for began := time.Now(); p.accepting(mesh.Inbound) || p.busy(time.Since(began) < opaqueGrace); {
		if !pause(ctx, drainPoll) {
			return
		}
	}
}

// busy reports whether an inbound connection is open, opaque ones counted or not.
func (p *Proxy) busy(opaque bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if c.dir == mesh.Inbound && (opaque || !c.watch.opaque.Load()) {
			return true
		}
	}
	return false
}

// Drain ends everything: as Quiesce does, but it waits for all inbound connections,
// and then in the same way for the outbound ones. When ctx is done, what remains is
// closed by force, counted, and reported by the error. A second call does the same again.
func (p *Proxy) Drain(ctx context.Context) error {
	p.beginDrain(mesh.Inbound)
	p.applying.Lock()
	p.unbind()
	p.applying.Unlock()
	forced := p.awaitConns(ctx, mesh.Inbound)
	p.beginDrain(mesh.Outbound)
	forced += p.awaitConns(ctx, mesh.Outbound)
	if forced > 0 {
		return fmt.Errorf("drain: %d connections had to be closed by force: %w", forced, context.Cause(ctx))
	}
	return nil
}

func (p *Proxy) beginDrain(d mesh.Direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.draining[d].on.Swap(true) {
		close(p.draining[d].done)
	}
}

// awaitConns waits until no connection of direction d is open or about to be
// accepted, and returns how many it had to close when ctx ended.
func (p *Proxy) awaitConns(ctx context.Context, d mesh.Direction) int {
	for p.accepting(d) || len(p.connections(d)) > 0 {
		if !pause(ctx, drainPoll) {
			n := p.closeConns(d)
			for range n {
				p.o.Recorder.ForcedClose()
			}
			p.forced.Add(uint64(n))
			return n
		}
	}
	return 0
}

// accepting reports whether retired listeners may bring another connection.
func (p *Proxy) accepting(d mesh.Direction) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return d == mesh.Inbound && p.retiring > 0
}
