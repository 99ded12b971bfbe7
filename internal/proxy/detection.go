package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/detect"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

// Times of the race between client and server on a port that nobody declared
// (docs/ARCHITECTURE.md, protocol detection). None of them delays a client that
// speaks: they say when the proxy begins to listen to the server too, and when
// it stops to hope for more of an unfinished first line.
const (
	// detectGrace is how long only the client is listened to.
	detectGrace = 50 * time.Millisecond
	// detectStall is how long a client may pause inside its first line or
	// ClientHello before the bytes are passed on as opaque.
	detectStall = 5 * time.Second
	// detectRefused is how long a client whose TCP destination is down may take
	// to say something that can be routed elsewhere.
	detectRefused = time.Second
)

// Results of detection that detect.Kind has no name for.
const (
	resultServerFirst = "server_first" // the server opened the conversation
	resultStalled     = "stalled"      // opaque, because the client paused within a possible first line
	resultUnreachable = "unreachable"  // the client was silent and its TCP destination is down
	resultNoHeader    = "no_header"    // no PROXY protocol header where one has to be
	resultClosed      = "closed"       // ended before a byte was sent
)

// maxServerFirst bounds the memory of server-first destinations.
const maxServerFirst = 1024

// portKey is a place where connections arrive, with what decides their
// handling: when the configuration changes that, the key changes too and the
// memory of the old one is never found again.
type portKey struct {
	addr            netip.AddrPort
	cluster, routes string
	protocol        mesh.Protocol
}

// serverFirst remembers where servers open the conversation. There the grace is
// skipped: both sides are listened to at once. A client that speaks first is
// classified all the same, so a wrong memory costs one early connection.
type serverFirst struct {
	mu    sync.Mutex
	known map[portKey]struct{}
}

func (m *serverFirst) has(k portKey) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.known[k]
	return ok
}

func (m *serverFirst) learn(k portKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil {
		m.known = map[portKey]struct{}{}
	}
	if len(m.known) >= maxServerFirst {
		for old := range m.known { // any one: it is learnt again when it is met
			delete(m.known, old)
			break
		}
	}
	m.known[k] = struct{}{}
}

func (c *conn) portKey() portKey {
	k := portKey{addr: c.local, protocol: c.target.protocol}
	if c.target.cluster != nil {
		k.cluster = c.target.cluster.Name
	}
	if c.target.routes != nil {
		k.routes = c.target.routes.Name()
	}
	return k
}

// serveUnknown finds out what a connection speaks whose port is not declared,
// and goes on with serveHTTP, serveHTTP2 or forward; the bytes read meanwhile
// are left in c.in.
func (c *conn) serveUnknown(ctx context.Context) {
	r := race{c: c, began: telemetry.Now(), tlsOnly: c.target.protocol == mesh.ProtocolTLS}
	r.run(ctx)
	now := telemetry.Now()
	c.p.o.Recorder.Detected(r.label, time.Duration(now-r.began).Seconds())
	if r.label == resultClosed {
		r.early.discard()
		return
	}
	_ = c.nc.SetReadDeadline(time.Time{}) // fails only when closed, which the next read reports
	switch r.result.Kind {
	case detect.HTTP1, detect.HTTP2:
		// The early connection waits in its endpoint's pool: a request that is
		// routed there finds it.
		if e := r.early; e != nil && e.conn != nil && r.result.Kind == detect.HTTP1 {
			e.dest.endpoint.Put(e.conn, now)
			e.conn = nil
		}
		r.early.discard()
		c.watch.set(phaseIdle, now)
		if r.result.Kind == detect.HTTP2 {
			c.serveHTTP2(ctx)
		} else {
			c.serveHTTP(ctx)
		}
	case detect.TLS, detect.Opaque, detect.Unknown:
		c.forward(ctx, r.early, r.result.SNI)
	}
}

// race listens to the client, and after a grace to the server as well, until it
// is clear what the connection speaks.
type race struct {
	c       *conn
	began   int64
	tlsOnly bool // declared TLS: never looked at as HTTP

	result detect.Result
	label  string // result label of the counter
	half   bool   // the server has ended its side without a word, and the client knows
	early  *early // nil if the server was not needed

	// Shared with the goroutine that listens to the server.
	spoke  atomic.Bool // it is done: early is complete
	cancel context.CancelFunc
	reads  atomic.Pointer[early] // connected: its read can be ended
	stop   atomic.Bool           // it shall end
	done   chan struct{}         // closed when it has ended; nil if it was never started
	found  *early                // its result, read after done
	broke  bool                  // the server reset the connection, read after done
}

func (r *race) run(ctx context.Context) {
	c := r.c
	c.watch.set(phaseIdle, r.began)
	key := c.portKey()
	grace := time.Now().Add(detectGrace)
	if c.p.serverFirst.has(key) || c.target.cluster == nil {
		grace = time.Now()
	}
	quiet := time.Time{} // until when the client may be silent; zero is for ever
	var latest time.Time // until when its first line has to be there; zero before its first byte
	defer r.join()
	if r.look() {
		return
	}
	for {
		limit := quiet
		if r.done == nil && c.target.cluster != nil {
			limit = grace
			if !quiet.IsZero() && quiet.Before(grace) {
				limit = quiet
			}
		}
		_ = c.nc.SetReadDeadline(limit) // fails only when closed, which the read reports
		if r.spoke.Load() && r.server(&quiet) {
			r.remember(key)
			return
		}
		if c.in.Len() > 0 {
			c.in.MakeRoom()
		}
		n, err := c.down.Read(&c.in, nil)
		switch {
		case n > 0:
			c.watch.set(phaseOpaque, telemetry.Now()) // time limits are this race's from here on
			now := time.Now()
			if latest.IsZero() {
				latest = now.Add(c.p.o.HeaderTimeout)
			}
			if quiet = now.Add(detectStall); quiet.After(latest) {
				quiet = latest
			}
			if r.look() {
				return
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			if r.late(ctx, quiet) {
				return
			}
		default:
			r.ended()
			return
		}
	}
}

// late handles a read deadline; it reports whether the race is over.
func (r *race) late(ctx context.Context, quiet time.Time) bool {
	c := r.c
	switch {
	case c.down.Interrupted(), c.watch.forced.Load(): // drained, idle or closed from outside
		r.label = resultClosed
		return true
	case r.spoke.Load(): // run asks what the server said
		return false
	case !quiet.IsZero() && !time.Now().Before(quiet):
		r.result, r.label = detect.Result{Kind: detect.Opaque}, resultStalled
		if c.in.Len() == 0 {
			r.label = resultUnreachable
		}
		return true
	case r.done == nil && c.target.cluster != nil:
		r.listen(ctx)
	}
	return false
}

// ended handles the end of the client's bytes.
func (r *race) ended() {
	r.label = resultClosed
	if r.c.in.Len() > 0 { // an unfinished line and an end: no HTTP any more
		r.result, r.label = detect.Result{Kind: detect.Opaque}, detect.Opaque.String()
	}
}

// look classifies what the client has sent; it reports whether that is enough.
func (r *race) look() bool {
	prefix := r.c.in.Bytes()
	if len(prefix) == 0 {
		return false
	}
	if r.half { // nobody could answer, whatever it is
		r.result, r.label = detect.Result{Kind: detect.Opaque}, detect.Opaque.String()
		return true
	}
	got, decided := detect.Client(prefix)
	if r.tlsOnly && got.Kind != detect.TLS && got.Kind != detect.Unknown {
		got = detect.Result{Kind: detect.Opaque}
	}
	if !decided {
		return false
	}
	r.result, r.label = got, got.Kind.String()
	return true
}

// listen starts to connect to the TCP destination and to listen to it.
func (r *race) listen(ctx context.Context) {
	ctx, r.cancel = context.WithCancel(ctx)
	r.done = make(chan struct{})
	c := r.c
	e := &early{dest: c.choose(c.target.cluster, nil)}
	go func() {
		defer close(r.done)
		r.found = e
		c.reach(ctx, e)
		if e.err == nil {
			r.reads.Store(e)
			if r.stop.Load() {
				return
			}
			_, err := e.conn.Read(&e.in, nil)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			r.broke = err != nil && !errors.Is(err, io.EOF)
		} else {
			// Refused is another error: this server accepted, and was quick to reset.
			r.broke = errors.Is(e.err, syscall.ECONNRESET)
		}
		r.spoke.Store(true)
		_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // wakes run; fails only when closed, which wakes it too
	}()
}

// server handles what the server did: spoke, ended, or was not reached. It
// reports whether the race is over.
func (r *race) server(quiet *time.Time) bool {
	<-r.done
	if r.found.err != nil && !r.broke {
		if r.early == nil { // the first time: leave the client a moment
			r.early = r.found
			if until := time.Now().Add(detectRefused); quiet.IsZero() {
				*quiet = until
			}
		}
		r.spoke.Store(false)
		_ = r.c.nc.SetReadDeadline(*quiet) // fails only when closed, which the read reports
		return false
	}
	if r.found.in.Len() == 0 && r.c.in.Len() == 0 {
		return r.silent()
	}
	r.result, r.label = detect.Result{Kind: detect.Opaque}, detect.Opaque.String()
	if r.found.in.Len() > 0 {
		r.label = resultServerFirst
	}
	return true
}

// silent handles a server that has ended the connection before anybody said a word:
// most likely one that a client keeps in store. What it would have spoken is not known,
// so it counts as nothing, at both ends. The server may have closed its side only, and
// the client is told just that.
func (r *race) silent() bool {
	tcp, ok := r.c.nc.(interface{ CloseWrite() error })
	if r.broke || !ok || tcp.CloseWrite() != nil {
		r.c.reset()
		r.label = resultClosed
		return true
	}
	r.half = true
	r.spoke.Store(false)
	return false
}

// remember keeps that the server opens the conversation here, unless what it
// said is an HTTP server's complaint about an idle connection.
func (r *race) remember(key portKey) {
	if r.label == resultServerFirst && !bytes.HasPrefix(r.found.in.Bytes(), []byte("HTTP/")) {
		r.c.p.serverFirst.learn(key)
	}
}

// join ends listening to the server and settles which side won: if both spoke at
// the same time, nothing of the server's may be lost, so the bytes are opaque.
func (r *race) join() {
	if r.done == nil {
		return
	}
	r.stop.Store(true)
	http := r.result.Kind == detect.HTTP1 || r.result.Kind == detect.HTTP2
	if http || r.label == resultClosed {
		r.cancel() // an unfinished connection is not needed
	}
	if e := r.reads.Load(); e != nil {
		e.conn.Interrupt()
	}
	<-r.done
	r.cancel()
	e := r.found
	r.early = e
	if e.conn != nil {
		e.conn.Resume()
	}
	if e.in.Len() > 0 && http {
		r.result, r.label = detect.Result{Kind: detect.Opaque}, resultServerFirst
	}
}
