//lint:file-ignore SA1019 see http2.go
package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// served lets a server accept connections until the test ends.
func served(t *testing.T, serve func(net.Listener) error, stop func()) netip.AddrPort {
	t.Helper()
	ln := tcpListen(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = serve(ln)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return addrPort(ln)
}

// grpcOrigin is gRPC's own interoperability server.
func grpcOrigin(t *testing.T, o ...grpc.ServerOption) netip.AddrPort {
	t.Helper()
	srv := grpc.NewServer(o...)
	testpb.RegisterTestServiceServer(srv, interop.NewTestServer())
	return served(t, srv.Serve, srv.Stop)
}

func (r *rig) grpcClient(t *testing.T) (testpb.TestServiceClient, *grpc.ClientConn) {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+r.entry, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("web"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return testpb.NewTestServiceClient(cc), cc
}

// h2Origin serves HTTP/2 without TLS.
func h2Origin(t *testing.T, h http.HandlerFunc) netip.AddrPort {
	t.Helper()
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	return webOrigin(t, &http.Server{Handler: h, Protocols: &p})
}

// webOrigin serves srv until the test ends.
func webOrigin(t *testing.T, srv *http.Server) netip.AddrPort {
	t.Helper()
	return served(t, srv.Serve, func() { _ = srv.Close() })
}

func (r *rig) h2Client(t *testing.T) *http.Client {
	t.Helper()
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &p, DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", r.entry)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func requestLabels(proto, code, grpcStatus, flags string) []string {
	return []string{
		"reporter=source", "destination_service_name=web", "request_protocol=" + proto, "response_code=" + code,
		"grpc_response_status=" + grpcStatus, "response_flags=" + flags,
	}
}

// h2frames is a peer that speaks frames, for what libraries do not send.
type h2frames struct {
	*http2.Framer
	enc *hpack.Encoder
	buf *bytes.Buffer
	c   net.Conn
}

func newH2Frames(c net.Conn) *h2frames {
	f := &h2frames{Framer: http2.NewFramer(c, c), buf: &bytes.Buffer{}, c: c}
	f.enc = hpack.NewEncoder(f.buf)
	f.AllowIllegalWrites = true
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return f
}

// h2Settings is an empty SETTINGS frame. The library waits 2 s for it after the
// preface, so both have to be sent together.
const h2Settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

func h2Raw(t *testing.T, c net.Conn) *h2frames {
	t.Helper()
	mustWrite(t, c, http2.ClientPreface+h2Settings)
	return newH2Frames(c)
}

func h2Serve(t *testing.T, c net.Conn) *h2frames {
	t.Helper()
	f := newH2Frames(c)
	_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
	_ = f.WriteSettings()
	return f
}

// h2Heads is an origin that answers each head of a request by answer.
func h2Heads(t *testing.T, answer func(f *h2frames, stream uint32)) netip.AddrPort {
	t.Helper()
	return origin(t, func(c *net.TCPConn) {
		f := h2Serve(t, c)
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			if head, ok := frame.(*http2.MetaHeadersFrame); ok {
				answer(f, head.StreamID)
			}
		}
	})
}

func (f *h2frames) request(t *testing.T, id uint32, end bool, fields ...string) {
	t.Helper()
	f.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = f.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	block := f.buf.Bytes()
	n := min(len(block), h2MaxFrame)
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:n], EndStream: end, EndHeaders: n == len(block)}); err != nil {
		t.Fatal(err)
	}
	for block = block[n:]; len(block) > 0; block = block[n:] {
		n = min(len(block), h2MaxFrame)
		if err := f.WriteContinuation(id, n == len(block), block[:n]); err != nil {
			return // refused already
		}
	}
}

func (f *h2frames) respond(id uint32, body string) {
	f.buf.Reset()
	_ = f.enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.buf.Bytes(), EndHeaders: true})
	_ = f.WriteData(id, true, []byte(body))
}

// next is the next frame; nil at the end of the connection.
func (f *h2frames) next(t *testing.T) http2.Frame {
	t.Helper()
	if err := f.c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	fr, err := f.ReadFrame()
	if err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			t.Fatal(err)
		}
		return nil
	}
	return fr
}
