//lint:file-ignore SA1019 see http2.go
package proxy

import (
	"bytes"
	"encoding/binary"
	"net"
	"slices"

	"golang.org/x/net/http2"

	"github.com/vitrine-mesh/vitrine/internal/detect"
)

// h2wire is the client's connection with the bytes that were read for detection
// still in front. It follows the frames both ways: the library answers, resets
// and ignores requests without telling.
type h2wire struct {
	net.Conn
	s *h2conn

	// Touched by the library's reading goroutine only, and after its end.
	in         h2frameScanner
	began      bool
	last       uint32 // highest stream opened
	incomplete uint32 // the stream whose head is still arriving; 0 is none

	// Touched by one writing goroutine of the library at a time.
	out   h2frameScanner
	held  []byte // beginning of a frame that may have to be changed, not yet sent
	codes []h2code
}

// h2code is an error code to be put into what is being written.
type h2code struct {
	end  int // of the code's four bytes, from the beginning of the current write
	code http2.ErrCode
}

func newH2Wire(s *h2conn) *h2wire { return &h2wire{Conn: s.nc, s: s} }

// Read implements net.Conn.
func (w *h2wire) Read(p []byte) (int, error) {
	if !w.began {
		w.began = true
		w.in.skip = len(detect.HTTP2Preface)
	}
	if n := copy(p, w.s.in.Bytes()); n > 0 {
		w.s.in.Skip(n)
		w.s.in.ReleaseIfEmpty()
		w.in.scan(p[:n], w.received)
		return n, nil
	}
	n, err := w.Conn.Read(p)
	w.in.scan(p[:n], w.received)
	return n, err
}

// received sees a frame of the client, before the library does.
func (w *h2wire) received(f *h2frameScanner) {
	switch id := f.stream(); f.kind() {
	case http2.FrameHeaders:
		if id > w.last {
			w.last, w.incomplete = id, id
			w.s.opens(id)
		}
		if w.incomplete == id && f.flags().Has(http2.FlagHeadersEndHeaders) {
			w.incomplete = 0
		}
	case http2.FrameContinuation:
		if w.incomplete == id && f.flags().Has(http2.FlagContinuationEndHeaders) {
			w.incomplete = 0
		}
	case http2.FrameRSTStream:
		w.s.gaveUp(id)
	default:
	}
}

// unfinishedHead is the stream whose head had not come to its end when the
// connection did; 0 is none.
func (w *h2wire) unfinishedHead() uint32 {
	if k := w.in.kind(); w.in.skip > 0 && (k == http2.FrameHeaders || k == http2.FrameContinuation) {
		return w.in.stream()
	}
	return w.incomplete
}

// Write implements net.Conn. The library resets a stream that it is told to give
// up always as an internal error; here the code becomes the one that the upstream
// gave. A frame that is cut between two writes leaves with the second.
func (w *h2wire) Write(p []byte) (int, error) {
	w.codes = w.codes[:0]
	w.out.scan(p, w.sending)
	if len(w.held)+w.out.have+len(w.codes) == 0 {
		return w.Conn.Write(p)
	}
	before := len(w.held)
	b := slices.Concat(w.held, p)
	for _, c := range w.codes {
		binary.BigEndian.PutUint32(b[before+c.end-4:], uint32(c.code))
	}
	ready := len(b) - w.out.have
	w.held = bytes.Clone(b[ready:])
	if _, err := w.Conn.Write(b[:ready]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// sending sees a frame of the library, before the client does.
func (w *h2wire) sending(f *h2frameScanner) {
	switch f.kind() {
	case http2.FrameHeaders:
		w.s.take(f.stream(), h2refused)
	case http2.FrameRSTStream:
		if code, ok := w.s.resetCode(f.stream()); ok {
			w.codes = append(w.codes, h2code{end: f.at, code: code})
		}
		fate := h2refused
		if http2.ErrCode(binary.BigEndian.Uint32(f.payload())) == http2.ErrCodeRefusedStream {
			fate = h2ignored
		}
		w.s.take(f.stream(), fate)
	case http2.FrameGoAway:
		p := f.payload()
		w.s.saidGoAway(binary.BigEndian.Uint32(p)&(1<<31-1), http2.ErrCode(binary.BigEndian.Uint32(p[4:])))
	default:
	}
}

// h2frameScanner follows the frames of RFC 9113, section 4.1, in one direction.
type h2frameScanner struct {
	skip int // bytes of preface or payload until the next frame header
	head [h2FrameLen + 8]byte
	have int
	at   int // how much of the bytes given to scan was looked at
}

// The frame seen last. Of the payload the first eight bytes are kept for frames
// that are that short or say where the connection ends, zeros beyond its end.
func (s *h2frameScanner) kind() http2.FrameType { return http2.FrameType(s.head[3]) }
func (s *h2frameScanner) flags() http2.Flags    { return http2.Flags(s.head[4]) }
func (s *h2frameScanner) stream() uint32        { return binary.BigEndian.Uint32(s.head[5:]) & (1<<31 - 1) }
func (s *h2frameScanner) payload() []byte       { return s.head[h2FrameLen:] }

func (s *h2frameScanner) length() int {
	return int(s.head[0])<<16 | int(s.head[1])<<8 | int(s.head[2])
}

// scan calls seen for each frame whose beginning ends in p.
func (s *h2frameScanner) scan(p []byte, seen func(*h2frameScanner)) {
	for s.at = 0; len(p) > 0; {
		if n := min(s.skip, len(p)); n > 0 {
			s.skip -= n
			s.at += n
			p = p[n:]
			continue
		}
		want := h2FrameLen
		if s.have >= h2FrameLen {
			want += s.kept()
		}
		n := copy(s.head[s.have:want], p)
		s.have += n
		s.at += n
		p = p[n:]
		switch {
		case s.have < want:
			return
		case s.have == h2FrameLen && s.kept() > 0:
			clear(s.payload())
			continue
		}
		s.skip = s.length() - (s.have - h2FrameLen)
		s.have = 0
		seen(s)
	}
}

// kept is how much of the payload is looked at.
func (s *h2frameScanner) kept() int {
	switch s.kind() {
	case http2.FrameRSTStream, http2.FrameGoAway:
		return min(s.length(), len(s.payload()))
	default:
		return 0
	}
}
