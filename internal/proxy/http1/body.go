package http1

import (
	"bytes"
	"strconv"
)

// Body decodes one message body in place, whatever its framing. Start it, feed
// it the unread bytes with Next until Done.
type Body struct {
	framing Framing
	left    uint64 // of the body (Length) or of the chunk
	state   chunkState
	digits  int
	ext     int
	done    bool

	// Trailer is the trailer section that is forwarded, as field lines. It is
	// complete when Done; the memory is reused.
	Trailer []byte
	section int // bytes of the trailer section as received
}

type chunkState uint8

const (
	chunkSizeFirst chunkState = iota // first digit of a size
	chunkSize
	chunkExtension
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailer
)

// Limits of chunked bodies.
const (
	maxExtensionBytes = 256
	// MaxTrailerBytes bounds the trailer section, which is kept in memory.
	MaxTrailerBytes = 8 << 10
)

// Start begins a body; n counts for Length only.
func (b *Body) Start(f Framing, n uint64) {
	trailer := b.Trailer[:0]
	*b = Body{framing: f, Trailer: trailer}
	switch f {
	case NoBody:
		b.done = true
	case Length:
		b.left, b.done = n, n == 0
	case Chunked, UntilClose:
	}
}

// Done reports whether the body is complete. A body that ends with the
// connection is never done by itself.
func (b *Body) Done() bool { return b.done }

// Remaining is how many bytes are still to come if that is known: for Length.
func (b *Body) Remaining() (n uint64, known bool) { return b.left, b.framing == Length }

// EOF says that the connection has ended; an error means that the body had not.
func (b *Body) EOF() error {
	if b.done || b.framing == UntilClose {
		b.done = true
		return nil
	}
	return ErrTruncated
}

// Next takes bytes off the front of buf: content is buf[from:to], and used says
// how many bytes were taken. Chunks that lie behind one another are moved
// together, so bytes of buf up to used are changed. Errors are of type RejectError.
func (b *Body) Next(buf []byte) (from, to, used int, err error) {
	switch {
	case b.done:
		return 0, 0, 0, nil
	case b.framing == UntilClose:
		return 0, len(buf), len(buf), nil
	case b.framing == Length:
		n := len(buf)
		if uint64(n) >= b.left {
			n, b.done = int(b.left), true
		}
		b.left -= uint64(n)
		return 0, n, n, nil
	}
	return b.chunks(buf)
}

func (b *Body) chunks(buf []byte) (from, to, used int, err error) {
	i := 0
	for i < len(buf) && !b.done {
		if b.state == chunkData {
			n := len(buf) - i
			if uint64(n) >= b.left {
				n = int(b.left)
				b.state = chunkDataCR
			}
			b.left -= uint64(n)
			if to == from { // the first content: where it is
				from, to = i, i+n
			} else {
				to += copy(buf[to:], buf[i:i+n])
			}
			i += n
			continue
		}
		if b.state == chunkTrailer {
			n, err := b.trailerLine(buf[i:])
			if err != nil {
				return 0, 0, i, err
			}
			if n == 0 {
				return from, to, i, nil // an incomplete line stays
			}
			i += n
			continue
		}
		if err := b.framingByte(buf[i]); err != nil {
			return 0, 0, i, err
		}
		i++
	}
	return from, to, i, nil
}

// framingByte advances by one byte between contents.
func (b *Body) framingByte(c byte) error {
	switch b.state {
	case chunkSizeFirst, chunkSize:
		return b.sizeByte(c)
	case chunkExtension:
		if c == '\r' {
			b.state = chunkSizeLF
			return nil
		}
		b.ext++
		if b.ext > maxExtensionBytes || c < ' ' && c != '\t' || c == 0x7f {
			return ErrChunkExtension
		}
	case chunkSizeLF:
		if c != '\n' {
			return ErrChunkSize
		}
		if b.left == 0 {
			b.state = chunkTrailer
		} else {
			b.state = chunkData
		}
	case chunkDataCR:
		if c != '\r' {
			return ErrChunkEnd
		}
		b.state = chunkDataLF
	case chunkDataLF:
		if c != '\n' {
			return ErrChunkEnd
		}
		b.state, b.digits, b.ext = chunkSizeFirst, 0, 0
	case chunkData, chunkTrailer:
	}
	return nil
}

// sizeByte reads a chunk size: 1 to 15 hexadecimal digits, no zero in front.
func (b *Body) sizeByte(c byte) error {
	if v := unhex(c); v <= 15 {
		if b.digits == 15 || b.digits > 0 && b.left == 0 {
			return ErrChunkSize
		}
		b.left = b.left<<4 | uint64(v)
		b.digits++
		b.state = chunkSize
		return nil
	}
	switch {
	case b.digits == 0:
		return ErrChunkSize
	case c == '\r':
		b.state = chunkSizeLF
	case c == ';':
		b.state = chunkExtension
	default:
		return ErrChunkSize
	}
	return nil
}

// trailerLine reads one line of the trailer section; 0 means that it is not
// complete. Lines that may be forwarded are kept.
func (b *Body) trailerLine(buf []byte) (int, error) {
	end := bytes.IndexByte(buf, '\n')
	if b.section+max(end+1, len(buf)*btoi(end < 0)) > MaxTrailerBytes {
		return 0, ErrHeadTooLarge
	}
	if end < 0 {
		return 0, nil
	}
	if end == 0 || buf[end-1] != '\r' {
		return 0, ErrBareLF
	}
	line := buf[:end-1]
	b.section += end + 1
	if len(line) == 0 {
		b.done = true
		return end + 1, nil
	}
	colon := 0
	for colon < len(line) && isToken[line[colon]] {
		colon++
	}
	if err := checkName(line, colon); err != nil {
		return 0, err
	}
	value := trimOWS(line[colon+1:])
	if !text(value) {
		return 0, ErrTrailer
	}
	switch known(line[:colon]) {
	case nameOther, nameForwardedFor, nameGRPCStatus, nameRequestID:
		b.Trailer = append(b.Trailer, line[:colon]...)
		b.Trailer = append(b.Trailer, ": "...)
		b.Trailer = append(b.Trailer, value...)
		b.Trailer = append(b.Trailer, "\r\n"...)
	default: // what frames, routes or describes the message has no place here (RFC 9110, 6.5.1)
	}
	return end + 1, nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// MaxChunkHeader is the longest line that AppendChunkHeader writes for a chunk
// that fits a buffer.
const MaxChunkHeader = 10

// AppendChunkHeader writes the line before a chunk of n bytes.
func AppendChunkHeader(dst []byte, n int) []byte {
	dst = strconv.AppendUint(dst, uint64(n), 16)
	return append(dst, "\r\n"...)
}

// AppendLastChunk writes the end of a chunked body.
func AppendLastChunk(dst, trailer []byte) []byte {
	dst = append(dst, "0\r\n"...)
	dst = append(dst, trailer...)
	return append(dst, "\r\n"...)
}
