package telemetry

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// Recorder counts what one proxy does. It counts from New on; Run adds the
// periodic reports, eviction and the log writer.
type Recorder struct {
	// Read-only after New.
	o       Options
	bounds  *bounds
	log     *accessLog
	unknown [2]*Edge // by direction: neither peer nor service known
	started int64    // Unix milliseconds

	// wallOffset is Unix nanoseconds minus Now(); Run follows changes of the clock.
	wallOffset atomic.Int64

	pool sync.Pool // *account
	live liveSet
	self selfMetrics

	mu    sync.Mutex
	edges map[string]*Edge // by id
	hosts map[string]int   // values of HostFallback in use, with the number of edges
	// evictedUntil is when evicted series were last shown to be gone, in Unix
	// milliseconds: the last exposition, or the eviction if there was none since; 0
	// before any. A scraper ends series at the first exposition without them, and
	// takes no zero sample from before.
	evictedUntil int64
}

// New checks o and makes a Recorder.
func New(o Options) (*Recorder, error) {
	o = o.clone()
	if err := o.setDefaults(); err != nil {
		return nil, fmt.Errorf("telemetry options: %w", err)
	}
	r := &Recorder{
		o: o, bounds: newBounds(o.Buckets, 1e6), started: time.Now().UnixMilli(),
		edges: map[string]*Edge{}, hosts: map[string]int{},
		live: liveSet{conns: map[*ConnRecord]struct{}{}, streams: map[*account]uint64{}},
	}
	r.self.init()
	r.setWallOffset()
	r.log = newAccessLog(r, o.AccessLog)
	for _, d := range []mesh.Direction{mesh.Outbound, mesh.Inbound} {
		r.unknown[d] = r.Edge(EdgeKey{Direction: d})
	}
	return r, nil
}

// Run reports what lives, evicts what is silent and writes the access log,
// until ctx ends; then it does all of it once more, so that the next scrape and
// the log are complete. It always returns nil.
func (r *Recorder) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	if r.o.AccessLog.Writer != nil {
		wg.Go(func() { r.writeLog(ctx) })
	}
	t := time.NewTicker(r.o.ReportInterval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			r.setWallOffset()
			r.live.report()
			r.sweep()
		case <-ctx.Done():
			r.live.report()
			wg.Wait()
			return nil
		}
	}
}

func (r *Recorder) setWallOffset() { r.wallOffset.Store(time.Now().UnixNano() - Now()) }

// logInterval is how long a log entry waits at most before it is written.
const logInterval = 200 * time.Millisecond

func (r *Recorder) writeLog(ctx context.Context) {
	t := time.NewTicker(logInterval)
	defer t.Stop()
	failed := false
	for {
		last := false
		select {
		case <-t.C:
		case <-r.log.wake:
		case <-ctx.Done():
			last = true
		}
		err := r.log.drain(r.o.AccessLog.Writer, last)
		if err != nil && !failed {
			r.o.Log.Warn("write access log: entries are dropped until it works again", "error", err)
		}
		failed = err != nil
		if last {
			return
		}
	}
}

// creationLead is how much earlier than its first observation a series says to
// have begun. A scrape carries the time at which the scraper started it, a
// little before we render: a series that began in between must not seem
// younger than its first sample, or the scraper would see a reset.
const creationLead = 1000 // milliseconds

// creation is the creation time of a series that begins now. It is later than
// the end of every evicted series, and not before this process: the scraper
// may have samples of a predecessor. The caller holds r.mu.
func (r *Recorder) creation() int64 {
	return max(time.Now().UnixMilli()-creationLead, r.evictedUntil+1, r.started)
}

// sweep retires the series that were silent for EvictAfter, and then the edges
// that have been without series for as long.
func (r *Recorder) sweep() {
	if r.o.EvictAfter == 0 {
		return
	}
	now := Now()
	limit := now - int64(r.o.EvictAfter)
	r.mu.Lock()
	defer r.mu.Unlock()
	gone := 0
	for _, e := range r.edges {
		gone += drop(&e.requests, func(s *requestSeries) bool { return s.silent(now, limit) })
		gone += drop(&e.tcp, func(s *tcpSeries) bool { return s.silent(now, limit) })
		if s := e.messages.Load(); s != nil && s.silent(now, limit) {
			e.messages.Store(nil)
			gone++
		}
		switch {
		case !e.empty():
			e.emptySince = 0
		case e.emptySince == 0:
			e.emptySince = now
		case e.emptySince <= limit:
			r.forget(e)
		}
	}
	if gone > 0 {
		r.evictedUntil = time.Now().UnixMilli()
		r.self.evicted.Add(uint64(gone))
	}
}

func (e *Edge) empty() bool {
	return len(*e.requests.Load()) == 0 && len(*e.tcp.Load()) == 0 && e.messages.Load() == nil
}
