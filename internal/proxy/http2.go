//lint:file-ignore SA1019 x/net/http2 points to net/http, which cannot take over a connection that is accepted and sniffed already
//nolint:staticcheck // as above, for golangci-lint
package proxy

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
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
	h2MaxFrame            = 16 << 10
	h2HeaderTable         = 4 << 10
)

func h2Config(maxStreams int) *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams:          maxStreams,
		MaxReadFrameSize:              h2MaxFrame,
		MaxReceiveBufferPerConnection: h2ConnWindow,
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
	s := &h2conn{conn: c}
	s.idle.L = &s.mu
	limit := h2MaxStreams
	for _, l := range c.snap.inbound {
		if c.dir == mesh.Inbound && l.Address == c.local && l.Publish {
			limit = h2MaxStreamsPublished
		}
	}
	hs := &http.Server{
		IdleTimeout: c.p.o.IdleTimeout, MaxHeaderBytes: h2MaxHeaderBytes, HTTP2: h2Config(limit),
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
	wire := &h2wire{Conn: c.nc, c: c}
	h2s.ServeConn(wire, &http2.ServeConnOpts{Context: ctx, BaseConfig: hs, Handler: s})
	close(served)
	wg.Wait()
	s.settle(ctx, wire)
}

// h2conn serves the streams of one connection. Many goroutines use it.
type h2conn struct {
	*conn

	mu      sync.Mutex // guards what follows, and routing with the conn
	idle    sync.Cond  // running has become 0
	running int
	started uint64 // streams that reached ServeHTTP
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

// settle waits for the streams that still run, whose clients are gone, and
// accounts for those that the library answered by itself.
func (s *h2conn) settle(ctx context.Context, wire *h2wire) {
	// The library may have started a stream's goroutine that has not run yet.
	// It runs within moments; requests that it refused never do.
	opened := wire.opened.Load()
	for range 20 {
		s.mu.Lock()
		missing := opened - s.started
		s.mu.Unlock()
		if missing == 0 || !pause(context.WithoutCancel(ctx), time.Millisecond) {
			break
		}
	}
	s.mu.Lock()
	for s.running > 0 {
		s.idle.Wait()
	}
	refused := opened - s.started
	s.mu.Unlock()
	for range refused {
		s.p.o.Recorder.Rejected("http2_headers")
		rec := s.p.o.Recorder.Begin(s.dir, 0)
		rec.Edge, rec.Version = s.unrouted(nil).edge, h2Version
		rec.Code, rec.Flags, rec.Detail = http.StatusBadRequest, telemetry.FlagDPE, "http2.violation.of.messaging.rule"
		rec.Downstream, rec.DownstreamLocal = s.source, s.local
		rec.Finish()
	}
}

func (s *h2conn) enter() {
	s.mu.Lock()
	s.running++
	s.started++
	s.mu.Unlock()
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
	s.enter()
	defer s.leave()
	x := &h2stream{s: s, w: w, r: r}
	if x.serve(r.Context()) {
		// net/http's way to have the stream reset.
		panic(http.ErrAbortHandler)
	}
}

// h2wire is the client's connection with the bytes that were read for detection
// still in front. It counts the requests that the client opens: the library
// answers some without telling (forbidden header fields, too large heads).
type h2wire struct {
	net.Conn
	c      *conn
	opened atomic.Uint64

	// Touched by the library's reading goroutine only.
	skip   int // bytes of preface or payload until the next frame header
	began  bool
	header [9]byte
	have   int
	last   uint32 // highest stream opened
}

// Read implements net.Conn.
func (w *h2wire) Read(p []byte) (int, error) {
	if !w.began {
		w.began = true
		w.skip = len(http2Preface)
	}
	if n := copy(p, w.c.in.Bytes()); n > 0 {
		w.c.in.Skip(n)
		w.c.in.ReleaseIfEmpty()
		w.watch(p[:n])
		return n, nil
	}
	n, err := w.Conn.Read(p)
	w.watch(p[:n])
	return n, err
}

// watch follows the frames of RFC 9113, section 4.1.
func (w *h2wire) watch(p []byte) {
	const typeHeaders = 1
	for len(p) > 0 {
		if n := min(w.skip, len(p)); n > 0 {
			w.skip -= n
			p = p[n:]
			continue
		}
		n := copy(w.header[w.have:], p)
		w.have += n
		p = p[n:]
		if w.have < len(w.header) {
			return
		}
		h := w.header
		w.have = 0
		w.skip = int(h[0])<<16 | int(h[1])<<8 | int(h[2])
		id := uint32(h[5]&0x7f)<<24 | uint32(h[6])<<16 | uint32(h[7])<<8 | uint32(h[8])
		if h[3] == typeHeaders && id > w.last {
			w.last = id
			w.opened.Add(1)
		}
	}
}
