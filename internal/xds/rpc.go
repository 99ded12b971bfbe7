package xds

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/xds/envoy"
)

const (
	// maxMessageBytes bounds one message from the control plane.
	maxMessageBytes = 64 << 20
	// pingAfter and pingTimeout find a control plane that went away without a word.
	pingAfter   = 20 * time.Second
	pingTimeout = 10 * time.Second
)

// rpc is one bidirectional gRPC stream on a connection of its own, as the gRPC
// over HTTP/2 protocol description defines it. Send and receive may be called
// by one goroutine each; close ends both.
type rpc struct {
	conn   net.Conn
	out    *io.PipeWriter
	answer chan answer // has one element when the response headers are there
	in     io.ReadCloser
	resp   *http.Response
	once   sync.Once
	done   sync.WaitGroup
}

type answer struct {
	resp *http.Response
	err  error
}

// dial connects to the Unix socket and opens a stream to the method.
func dial(ctx context.Context, socket, path string) (*rpc, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("connect to the control plane (is it running?): %w", err)
	}
	transport := &http.Transport{
		DialContext:        func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		DisableCompression: true,
		Protocols:          new(http.Protocols),
		HTTP2:              &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: pingAfter},
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	in, out := io.Pipe()
	req := (&http.Request{
		Method: http.MethodPost,
		URL:    &url.URL{Scheme: "http", Host: "localhost", Path: path},
		Header: http.Header{
			"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {"vitrine-proxy"},
		},
		Body: in, ContentLength: -1,
	}).WithContext(ctx)
	r := &rpc{conn: conn, out: out, answer: make(chan answer, 1)}
	r.done.Go(func() {
		resp, err := transport.RoundTrip(req) //nolint:bodyclose // close ends the connection, which belongs to this stream alone
		r.answer <- answer{resp: resp, err: err}
	})
	return r, nil
}

// close ends the stream and waits for what it started.
func (r *rpc) close() {
	r.once.Do(func() {
		_ = r.out.CloseWithError(net.ErrClosed)
		_ = r.conn.Close()
	})
	r.done.Wait()
}

// send writes one message.
func (r *rpc) send(m envoy.Message) error {
	frame, err := envoy.Append(make([]byte, 5, 512), m)
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint32(frame[1:], uint32(len(frame)-5))
	if _, err := r.out.Write(frame); err != nil {
		return fmt.Errorf("write to the control plane: %w", err)
	}
	return nil
}

// receive reads one message into the empty m. It returns io.EOF when the
// control plane ended the stream without an error.
func (r *rpc) receive(m envoy.Message) error {
	if r.resp == nil {
		a := <-r.answer
		if a.err != nil {
			return fmt.Errorf("read from the control plane: %w", a.err)
		}
		r.resp, r.in = a.resp, a.resp.Body
		if kind := a.resp.Header.Get("Content-Type"); a.resp.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "application/grpc") {
			return fmt.Errorf("control plane answers %s of type %q, not gRPC", a.resp.Status, kind)
		}
		if err := grpcStatus(a.resp.Header); err != nil {
			return err
		}
	}
	var head [5]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			if status := grpcStatus(r.resp.Trailer); status != nil {
				return status
			}
			return io.EOF
		}
		return fmt.Errorf("read from the control plane: %w", err)
	}
	size := binary.BigEndian.Uint32(head[1:])
	if head[0] != 0 || size > maxMessageBytes {
		return fmt.Errorf("control plane sends a message of %d bytes (flags %d), want at most %d uncompressed", size, head[0], maxMessageBytes)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r.in, body); err != nil {
		return fmt.Errorf("read from the control plane: %w", err)
	}
	return envoy.Unmarshal(body, m)
}

// grpcStatus reads the status of an ended stream; nil when there is none or OK.
func grpcStatus(h http.Header) error {
	code := h.Get("Grpc-Status")
	if code == "" || code == "0" {
		return nil
	}
	text, err := url.PathUnescape(h.Get("Grpc-Message"))
	if err != nil {
		text = h.Get("Grpc-Message")
	}
	return fmt.Errorf("control plane ended the stream with status %s: %s", code, text)
}
