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

	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

// h2session is the HTTP/2 side of one endpoint: its connections, each carrying
// many streams. A further one is opened when all are at their peer's limit. It
// lives in Endpoint.Shared.
type h2session struct {
	endpoint  *upstream.Endpoint
	transport *http2.Transport

	mu      sync.Mutex // guards what follows
	conns   []*http2.ClientConn
	dialing *h2dial
	closed  bool
}

// h2dial is a connection being opened, for all who wait for it.
type h2dial struct {
	done chan struct{}
	err  error // after done
}

// h2call is the part of a request's context that GetClientConn needs.
type h2call struct {
	dest     *destination
	attempts int
}

type h2callKey struct{}

// h2Attempts bounds how often one request is sent. It is sent again only when
// the endpoint has certainly not acted on it (GOAWAY, REFUSED_STREAM).
const h2Attempts = 3

// dialError is a failure to connect; nothing of the request was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

var errRefusedAgain = errors.New("the endpoint has refused the request repeatedly")

// newH2Session makes the session of e; idle connections are closed after idle.
func newH2Session(e *upstream.Endpoint, idle time.Duration) *h2session {
	s := &h2session{endpoint: e}
	// ConfigureTransports is the only way to set the windows. It fails only on
	// a transport that has HTTP/2 already.
	t, err := http2.ConfigureTransports(&http.Transport{
		HTTP2: h2Config(0), IdleConnTimeout: idle, DisableCompression: true, MaxResponseHeaderBytes: h2MaxHeaderBytes,
	})
	if err != nil {
		t = &http2.Transport{DisableCompression: true}
	}
	t.AllowHTTP = true
	t.MaxHeaderListSize = h2MaxHeaderBytes
	t.ConnPool = s
	s.transport = t
	return s
}

// h2sessionOf finds or makes the session of d's endpoint.
func (p *Proxy) h2sessionOf(d *destination) *h2session {
	return d.endpoint.Shared(func() io.Closer {
		return newH2Session(d.endpoint, p.o.PeerIdleTimeout)
	}).(*h2session)
}

// GetClientConn implements http2.ClientConnPool.
func (s *h2session) GetClientConn(req *http.Request, _ string) (*http2.ClientConn, error) {
	call, _ := req.Context().Value(h2callKey{}).(*h2call)
	if call.attempts++; call.attempts > h2Attempts {
		return nil, errRefusedAgain
	}
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, &dialError{upstream.ErrClosed}
		}
		for _, cc := range s.conns {
			if cc.ReserveNewRequest() {
				s.mu.Unlock()
				return cc, nil
			}
		}
		d := s.dialing
		if d == nil {
			d = &h2dial{done: make(chan struct{})}
			s.dialing = d
			s.mu.Unlock()
			s.open(req.Context(), call.dest, d)
		} else {
			s.mu.Unlock()
			select {
			case <-d.done:
			case <-req.Context().Done():
				return nil, req.Context().Err()
			}
		}
		switch {
		case d.err == nil:
		case errors.Is(d.err, context.Canceled) && req.Context().Err() == nil:
			// Who opened the connection gave up; this request has not.
		default:
			return nil, &dialError{d.err}
		}
	}
}

// open opens a connection and ends d.
func (s *h2session) open(ctx context.Context, dest *destination, d *h2dial) {
	uc, err := dest.dial(ctx)
	var cc *http2.ClientConn
	if err == nil {
		cc, err = s.transport.NewClientConn(&h2upstreamConn{Conn: uc.NetConn(), discard: sync.OnceFunc(uc.Discard)})
		if err != nil {
			uc.Discard()
		}
	}
	s.mu.Lock()
	s.dialing = nil
	d.err = err
	if err == nil {
		s.conns = append(s.conns, cc)
		if s.closed {
			cc.SetDoNotReuse()
		}
	}
	s.mu.Unlock()
	close(d.done)
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
