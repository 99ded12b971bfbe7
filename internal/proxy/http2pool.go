//lint:file-ignore SA1019 see http2.go
//nolint:staticcheck // as above, for golangci-lint
package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

// h2session is the HTTP/2 side of one endpoint: its connections, each carrying
// many streams. A further one is opened when all are at their peer's limit. It
// lives in Endpoint.Shared.
type h2session struct {
	transport h2transport
	last      h2transport // makes connections for one request each, after the end
	recorder  *telemetry.Recorder

	mu      sync.Mutex // guards what follows
	conns   []*http2.ClientConn
	dialing *h2dial
	closed  bool
}

// h2transport makes connections.
type h2transport struct{ *http2.Transport }

// h2dial is a connection being opened, for all who wait for it.
type h2dial struct {
	done chan struct{}
	err  error // after done
}

// h2call is the part of a request's context that GetClientConn needs.
type h2call struct {
	dest     *destination
	attempts int // how often it was to be sent
	dials    int // connections that were opened for it
}

type h2callKey struct{}

// h2Attempts bounds how often one request is sent. It is sent again only when
// the endpoint has certainly not acted on it (GOAWAY, REFUSED_STREAM).
const h2Attempts = 3

// dialError is a failure to connect; nothing of the request was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

var (
	errRefusedAgain = errors.New("the endpoint has refused the request repeatedly")
	errEndsAtOnce   = errors.New("the endpoint ends every connection at once")
)

// newH2Session makes a session; idle connections are closed after idle.
func newH2Session(idle time.Duration, rec *telemetry.Recorder) *h2session {
	s := &h2session{transport: newH2Transport(idle, false), last: newH2Transport(idle, true), recorder: rec}
	s.transport.ConnPool = s
	return s
}

func newH2Transport(idle time.Duration, single bool) h2transport {
	// ConfigureTransports is the only way to set the windows. It fails only on
	// a transport that has HTTP/2 already.
	t, err := http2.ConfigureTransports(&http.Transport{
		HTTP2: h2Config(0, h2EndpointWindow), IdleConnTimeout: idle, DisableCompression: true, MaxResponseHeaderBytes: h2MaxHeaderBytes,
		DisableKeepAlives: single,
	})
	if err != nil {
		t = &http2.Transport{DisableCompression: true}
	}
	t.AllowHTTP = true
	t.MaxHeaderListSize = h2MaxHeaderBytes
	return h2transport{t}
}

// h2sessionOf finds or makes the session of d's endpoint.
func (p *Proxy) h2sessionOf(d *destination) *h2session {
	return d.endpoint.Shared(func() io.Closer {
		return newH2Session(p.o.PeerIdleTimeout, p.o.Recorder)
	}).(*h2session)
}

// GetClientConn implements http2.ClientConnPool.
func (s *h2session) GetClientConn(req *http.Request, _ string) (*http2.ClientConn, error) {
	call, _ := req.Context().Value(h2callKey{}).(*h2call)
	switch call.attempts++; {
	case call.attempts > h2Attempts:
		return nil, errRefusedAgain
	case call.attempts > 1: // GOAWAY or REFUSED_STREAM
		s.recorder.Retried("not_processed")
	}
	for {
		s.mu.Lock()
		for _, cc := range s.conns {
			if cc.ReserveNewRequest() {
				s.mu.Unlock()
				return cc, nil
			}
		}
		d, closed := s.dialing, s.closed
		mine := d == nil && !closed && call.dials < h2Attempts
		if mine {
			d = &h2dial{done: make(chan struct{})}
			s.dialing = d
		}
		s.mu.Unlock()
		switch {
		case closed:
			return s.openLast(req.Context(), call.dest)
		case mine:
			call.dials++
			if cc, err := s.open(req.Context(), call.dest, d); cc != nil || err != nil {
				return cc, err
			}
		case d == nil:
			return nil, &dialError{errEndsAtOnce}
		default:
			if err := d.wait(req.Context()); err != nil {
				return nil, err
			}
		}
	}
}

// wait waits for a connection that another request opens. If that one gave up,
// this one has not.
func (d *h2dial) wait(ctx context.Context) error {
	select {
	case <-d.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if d.err != nil && !errors.Is(d.err, context.Canceled) {
		return &dialError{d.err}
	}
	return nil
}

// open opens a connection and ends d. It returns the connection if it can carry
// the request that opened it; others may use it, too.
func (s *h2session) open(ctx context.Context, dest *destination, d *h2dial) (*http2.ClientConn, error) {
	cc, err := s.transport.newConn(ctx, dest)
	reserved := err == nil && cc.ReserveNewRequest()
	s.mu.Lock()
	s.dialing = nil
	d.err = err
	unwanted := err == nil && s.closed // meanwhile
	if err == nil && !unwanted {
		s.conns = append(s.conns, cc)
	}
	s.mu.Unlock()
	close(d.done)
	switch {
	case err != nil:
		return nil, &dialError{err}
	case unwanted:
		_ = cc.Close() // nothing was sent on it
		return nil, nil
	case !reserved:
		return nil, nil
	}
	return cc, nil
}

// openLast opens a connection for one request that chose the endpoint before it
// left the mesh.
func (s *h2session) openLast(ctx context.Context, dest *destination) (*http2.ClientConn, error) {
	cc, err := s.last.newConn(ctx, dest)
	if err != nil {
		return nil, &dialError{err}
	}
	if !cc.ReserveNewRequest() {
		_ = cc.Close() // it has ended already
		return nil, &dialError{errEndsAtOnce}
	}
	return cc, nil
}

// newConn connects to dest.
func (t h2transport) newConn(ctx context.Context, dest *destination) (*http2.ClientConn, error) {
	uc, err := dest.dial(ctx)
	if err != nil {
		return nil, err
	}
	cc, err := t.NewClientConn(&h2upstreamConn{Conn: uc.NetConn(), discard: sync.OnceFunc(uc.Discard)})
	if err != nil {
		uc.Discard()
	}
	return cc, err
}

// MarkDead implements http2.ClientConnPool.
func (s *h2session) MarkDead(dead *http2.ClientConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, cc := range s.conns {
		if cc == dead {
			s.conns = append(s.conns[:i:i], s.conns[i+1:]...)
			return
		}
	}
}

// Close ends the session: idle connections now, busy ones after their last
// stream.
func (s *h2session) Close() error {
	s.mu.Lock()
	s.closed = true
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	for _, cc := range conns {
		cc.SetDoNotReuse()
		if st := cc.State(); st.StreamsActive == 0 && st.StreamsReserved == 0 {
			_ = cc.Close() // it is given up
		}
	}
	return nil
}

// h2upstreamConn tells the endpoint when the library closes a connection.
type h2upstreamConn struct {
	net.Conn
	discard func()
}

// Close implements net.Conn. It may be called more than once.
func (c *h2upstreamConn) Close() error {
	c.discard()
	return nil
}
