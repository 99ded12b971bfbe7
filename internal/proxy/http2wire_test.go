//lint:file-ignore SA1019 see http2.go
package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func TestHTTP2FrameScanner(t *testing.T) {
	bytes := "\x00\x00\x03\x00\x00\x00\x00\x00\x01abc" + // DATA
		"\x00\x00\x04\x03\x00\x00\x00\x00\x03\x00\x00\x00\x07" + // RST_STREAM, REFUSED_STREAM
		"\x00\x00\x0a\x07\x00\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x02hi" + // GOAWAY with text
		"\x00\x00\x00\x01\x05\x00\x00\x00\x0b" // HEADERS, empty
	const want = "DATA 1 0000000000000000;RST_STREAM 3 0000000700000000;GOAWAY 0 0000000900000002;HEADERS 11 0000000000000000;"
	for step := 1; step <= len(bytes); step++ {
		var s h2frameScanner
		var got strings.Builder
		for rest := []byte(bytes); len(rest) > 0; {
			n := min(step, len(rest))
			s.scan(rest[:n], func(f *h2frameScanner) {
				payload := make([]byte, 8)
				if f.kept() > 0 {
					copy(payload, f.payload())
				}
				fmt.Fprintf(&got, "%v %d %x;", f.kind(), f.stream(), payload)
			})
			rest = rest[n:]
		}
		if got.String() != want {
			t.Errorf("in pieces of %d: %s", step, got.String())
		}
	}
}

// A response that the endpoint gives up is given up with the same code.
func TestHTTP2ResetCodes(t *testing.T) {
	for _, code := range []http2.ErrCode{http2.ErrCodeCancel, http2.ErrCodeEnhanceYourCalm, http2.ErrCodeNo, http2.ErrCodeInternal} {
		t.Run(code.String(), func(t *testing.T) {
			at := h2Heads(t, func(f *h2frames, stream uint32) {
				f.buf.Reset()
				_ = f.enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: f.buf.Bytes(), EndHeaders: true})
				_ = f.WriteData(stream, false, []byte("half"))
				_ = f.WriteRSTStream(stream, code)
			})
			r := newRig(t, mesh.ProtocolHTTP2, at)
			f := h2Raw(t, r.dial(t))
			for id := uint32(1); id < 6; id += 2 {
				f.request(t, id, true, ":method", "GET", ":scheme", "http", ":authority", "web", ":path", "/")
				for reset := false; !reset; {
					switch fr := f.next(t).(type) {
					case *http2.RSTStreamFrame:
						if fr.StreamID != id || fr.ErrCode != code {
							t.Errorf("stream %d was reset with %v, want %d and %v", fr.StreamID, fr.ErrCode, id, code)
						}
						reset = true
					case nil:
						t.Fatal("the connection was closed")
					}
				}
			}
			r.wantSeries(t, "3", "istio_requests_total", requestLabels("http", "200", "", "UR")...)
		})
	}
}

// The code is exchanged wherever writes cut the frame, and nothing else changes.
func TestHTTP2ResetCodeInPieces(t *testing.T) {
	var sent, want bytes.Buffer
	write := func(b *bytes.Buffer, code http2.ErrCode) {
		f := http2.NewFramer(b, nil)
		_ = f.WriteData(1, false, []byte("data"))
		_ = f.WriteRSTStream(1, code)
		_ = f.WriteRSTStream(3, http2.ErrCodeInternal)
		_ = f.WriteData(5, true, []byte("more"))
	}
	write(&sent, http2.ErrCodeInternal)
	write(&want, http2.ErrCodeCancel)
	for step := 1; step <= sent.Len(); step++ {
		near, far := net.Pipe()
		s := newH2Conn(&conn{nc: near})
		s.resetWith(1, http2.ErrCodeCancel)
		w := newH2Wire(s)
		got := make(chan []byte)
		go func() {
			b := make([]byte, want.Len())
			n, _ := io.ReadFull(far, b)
			got <- b[:n]
		}()
		for rest := sent.Bytes(); len(rest) > 0; {
			n := min(step, len(rest))
			if m, err := w.Write(rest[:n]); m != n || err != nil {
				t.Fatalf("in pieces of %d: wrote %d, %v", step, m, err)
			}
			rest = rest[n:]
		}
		if b := <-got; !bytes.Equal(b, want.Bytes()) {
			t.Errorf("in pieces of %d:\n%x, want\n%x", step, b, want.Bytes())
		}
		near.Close()
		far.Close()
	}
}
