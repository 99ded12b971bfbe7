//lint:file-ignore SA1019 x/net/http2 points to net/http, which cannot take over a connection that is accepted and sniffed already
//nolint:staticcheck // as above, for golangci-lint
package proxy

import (
	"context"
	"log/slog"
	"math"
	"net/http"
	"reflect"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

// Limits of HTTP/2 towards clients and endpoints. The windows are those of
// Envoy's advice for the edge (best_practices/edge), the header limit is the one of
// HTTP/1.
const (
	h2MaxStreams          = 1000
	h2MaxStreamsPublished = 100 // on published addresses, where anybody may come
	h2MaxHeaderBytes      = 60 << 10
	h2ConnWindow          = 1 << 20
	h2StreamWindow        = 64 << 10
	// h2EndpointWindow is enough for all streams of a connection to an endpoint, which
	// are of many clients: those who do not read must not hold up the others.
	h2EndpointWindow = h2MaxStreams * h2StreamWindow
	h2MaxFrame       = 16 << 10
	h2HeaderTable    = 4 << 10
	// h2MaxWaiting is more than the library queues: four times its streams.
	h2MaxWaiting = 8 * h2MaxStreams
)

func h2Config(maxStreams, window int) *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams:          maxStreams,
		MaxReadFrameSize:              h2MaxFrame,
		MaxReceiveBufferPerConnection: window,
		MaxReceiveBufferPerStream:     h2StreamWindow,
		MaxDecoderHeaderTableSize:     h2HeaderTable,
		MaxEncoderHeaderTableSize:     h2HeaderTable,
	}
}

// serveHTTP2 serves a connection whose client opened with the HTTP/2 preface.
// The bytes read so far, preface included, are in c.in. It returns when the
// connection is done; the caller closes it.
//
// Framing, flow control and HPACK are golang.org/x/net/http2's; one goroutine
// serves one stream. When the proxy drains, the client is told to go away after
// the same grace that idle HTTP/1 connections have, and its streams end in peace.
func (c *conn) serveHTTP2(ctx context.Context) {
	// The library keeps the time limits of the connection, and drain is GOAWAY:
	// the reaper has nothing to do here, whether a stream is open or not.
	c.watch.set(phaseOpaque, telemetry.Now())
	s := newH2Conn(c)
	limit := h2MaxStreams
	for _, l := range c.snap.inbound {
		if c.dir == mesh.Inbound && l.Address == c.bound && l.Publish {
			limit = h2MaxStreamsPublished
		}
	}
	hs := &http.Server{
		IdleTimeout: c.p.o.IdleTimeout, MaxHeaderBytes: h2MaxHeaderBytes, HTTP2: h2Config(limit, h2ConnWindow),
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // clients' faults are counted, not logged
		ReadHeaderTimeout: c.p.o.HeaderTimeout,
	}
	h2s := &http2.Server{}
	if err := http2.ConfigureServer(hs, h2s); err != nil {
		c.p.o.Log.Error("HTTP/2 is not served", "error", err)
		return
	}
	served := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { s.drain(ctx, hs, served) })
	wire := newH2Wire(s)
	h2s.ServeConn(wire, &http2.ServeConnOpts{Context: ctx, BaseConfig: hs, Handler: s})
	close(served)
	wg.Wait()
	s.settle(ctx, wire.unfinishedHead())
}

// h2conn serves the streams of one connection. Many goroutines use it.
type h2conn struct {
	*conn

	mu      sync.Mutex // guards what follows, and routing with the conn
	idle    sync.Cond  // running has become 0
	running int
	waiting map[uint32]h2waiting     // streams opened but not begun
	lastID  uint32                   // the last stream that anybody looks at
	settled bool                     // the connection has ended
	resets  map[uint32]http2.ErrCode // of streams that are about to be reset
}

func newH2Conn(c *conn) *h2conn {
	s := &h2conn{conn: c, waiting: map[uint32]h2waiting{}, resets: map[uint32]http2.ErrCode{}, lastID: math.MaxUint32}
	s.idle.L = &s.mu
	return s
}

// drain tells the client to go away once the proxy drains.
func (s *h2conn) drain(ctx context.Context, hs *http.Server, served <-chan struct{}) {
	select {
	case <-served:
		return
	case <-s.p.draining[s.dir].done:
	}
	grace := time.NewTimer(s.p.o.DrainIdleGrace)
	defer grace.Stop()
	select {
	case <-served:
		return
	case <-grace.C:
	}
	_ = hs.Shutdown(ctx) // sends GOAWAY; it has no connections of its own to wait for
}

// opens notes that the client has opened the stream id.
func (s *h2conn) opens(id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id <= s.lastID && !s.settled {
		s.waiting[id] = h2waiting{since: telemetry.Now()}
	}
}

// gaveUp notes that the client has reset the stream id. It may begin yet; if it
// was queued, it never does. The library bounds those that are left in the
// queue, so the rest can be accounted for when there are many.
func (s *h2conn) gaveUp(id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := s.waiting[id]
	if !ok {
		return
	}
	w.reset = true
	s.waiting[id] = w
	if len(s.waiting) < h2MaxWaiting {
		return
	}
	for id, w := range s.waiting {
		if w.reset {
			s.takeLocked(id, h2dropped)
		}
	}
}

// h2waiting is a stream that was opened and has not begun.
type h2waiting struct {
	since int64 // telemetry.Now() when its head began to arrive
	reset bool  // by the client
}

// h2fate is what became of a stream that no goroutine serves.
type h2fate int

const (
	h2served  h2fate = iota // by a goroutine of its own, which keeps the record
	h2ignored               // the client was told that nobody looked at it, and may send it again
	h2refused               // the library answered, or reset it: the client's fault
	h2dropped               // the client gave it up, or went, before it was begun
)

// take ends the wait of the stream id for its goroutine, and returns since when
// it waited. Who gets true decides what becomes of it, and nobody else.
func (s *h2conn) take(id uint32, fate h2fate) (since int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takeLocked(id, fate)
}

func (s *h2conn) takeLocked(id uint32, fate h2fate) (since int64, ok bool) {
	w, ok := s.waiting[id]
	if !ok {
		return 0, false
	}
	since = w.since
	delete(s.waiting, id)
	if fate == h2served {
		s.running++
	}
	if fate != h2refused && fate != h2dropped {
		return since, true
	}
	rec := s.p.o.Recorder.Begin(s.dir, since)
	rec.Edge, rec.Version = s.unrouted(nil).edge, h2Version
	rec.Downstream, rec.DownstreamLocal = s.source, s.local
	if fate == h2refused {
		s.p.o.Recorder.Rejected("http2_headers")
		rec.Code, rec.Flags, rec.Detail = http.StatusBadRequest, telemetry.FlagDPE, "http2.violation.of.messaging.rule"
	} else {
		rec.Flags, rec.Detail = telemetry.FlagDC, detailClientGone
	}
	rec.Finish()
	return since, true
}

// saidGoAway notes that the client was told which stream is the last that
// anybody looks at. All further ones are ignored. If the client broke a rule and
// the last one has not begun, its head was the reason.
func (s *h2conn) saidGoAway(last uint32, code http2.ErrCode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID = min(s.lastID, last)
	for id := range s.waiting {
		switch {
		case id > last:
			s.takeLocked(id, h2ignored)
		case id == last && code != http2.ErrCodeNo:
			s.takeLocked(id, h2refused)
		}
	}
}

// settle accounts for the streams that were opened and never begun, and waits
// for those that still run, whose clients are gone. A goroutine that begins
// later finds its stream taken.
func (s *h2conn) settle(ctx context.Context, incomplete uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled = true
	s.takeLocked(incomplete, h2ignored) // the end of its head never came
	// Streams whose goroutine is about to run are better accounted for by it,
	// which finds out where they go.
	for tries := 0; len(s.waiting) > 0 && tries < 20; tries++ {
		s.mu.Unlock()
		pause(context.WithoutCancel(ctx), time.Millisecond)
		s.mu.Lock()
	}
	for id := range s.waiting {
		s.takeLocked(id, h2dropped)
	}
	for s.running > 0 {
		s.idle.Wait()
	}
}

func (s *h2conn) leave() {
	s.mu.Lock()
	if s.running--; s.running == 0 {
		s.idle.Broadcast()
	}
	s.mu.Unlock()
}

// ServeHTTP serves one stream.
func (s *h2conn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := h2streamID(w)
	since, ok := s.take(id, h2served)
	if !ok {
		return // it was reset, or the connection has ended, before this began
	}
	defer s.leave()
	x := &h2stream{s: s, w: w, r: r, opened: since, code: http2.ErrCodeInternal}
	if x.serve(r.Context()) {
		s.resetWith(id, x.code)
		// net/http's way to have the stream reset.
		panic(http.ErrAbortHandler)
	}
}

// resetWith says what code the reset of the stream id shall carry. If the client
// resets it in the same moment there is none: what is left over is forgotten when
// it is much.
func (s *h2conn) resetWith(id uint32, code http2.ErrCode) {
	if code == http2.ErrCodeInternal {
		return // the library's own
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.resets) >= h2MaxStreams {
		clear(s.resets)
	}
	s.resets[id] = code
}

// resetCode is what resetWith said, once.
func (s *h2conn) resetCode(id uint32) (http2.ErrCode, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	code, ok := s.resets[id]
	delete(s.resets, id)
	return code, ok
}

// h2streamID is the number of the stream that w answers. The library does not
// tell it in any other way; whoever changes the library's version finds the tests
// of HTTP/2 failing should this field have moved.
func h2streamID(w http.ResponseWriter) uint32 {
	v := reflect.ValueOf(w)
	for _, field := range []string{"rws", "stream", "id"} {
		if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
			return 0
		}
		v = v.Elem().FieldByName(field)
	}
	if !v.CanUint() {
		return 0
	}
	return uint32(v.Uint()) // stream numbers have 31 bits
}
