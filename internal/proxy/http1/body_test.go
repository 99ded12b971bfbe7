package http1

import (
	"errors"
	"strings"
	"testing"
)

// decode feeds in to a body in pieces of size step.
func decode(f Framing, n uint64, in string, step int) (content, trailer, rest string, err error) {
	var b Body
	b.Start(f, n)
	var buf []byte
	for !b.Done() {
		if len(in) == 0 {
			return content, "", string(buf), b.EOF()
		}
		k := min(step, len(in))
		buf = append(buf, in[:k]...)
		in = in[k:]
		for {
			from, to, used, err := b.Next(buf)
			if err != nil {
				return content, "", "", err
			}
			content += string(buf[from:to])
			buf = buf[used:]
			if used == 0 || len(buf) == 0 || b.Done() {
				break
			}
		}
	}
	return content, string(b.Trailer), string(buf) + in, nil
}

func TestChunkedBodies(t *testing.T) {
	for _, tc := range []struct {
		name, in, content, trailer, rest string
		err                              error
	}{
		{"one", "3\r\nabc\r\n0\r\n\r\n", "abc", "", "", nil},
		{"several", "3\r\nabc\r\n2\r\nde\r\nA\r\n0123456789\r\n0\r\n\r\nGET", "abcde0123456789", "", "GET", nil},
		{"empty", "0\r\n\r\n", "", "", "", nil},
		{"extension", "3;a=b\r\nabc\r\n0;c\r\n\r\n", "abc", "", "", nil},
		{"trailer", "1\r\na\r\n0\r\nX-Sum:  1 \r\ngrpc-status: 0\r\n\r\n", "a", "X-Sum: 1\r\ngrpc-status: 0\r\n", "", nil},
		{"forbidden trailers", "0\r\nContent-Length: 5\r\nHost: b\r\nX: y\r\n\r\n", "", "X: y\r\n", "", nil},

		{"no size", "\r\nabc", "", "", "", ErrChunkSize},
		{"only an extension", ";a\r\n", "", "", "", ErrChunkSize},
		{"space before size", " 3\r\nabc\r\n", "", "", "", ErrChunkSize},
		{"space after size", "3 \r\nabc\r\n", "", "", "", ErrChunkSize},
		{"sign", "+3\r\nabc\r\n", "", "", "", ErrChunkSize},
		{"0x", "0x3\r\nabc\r\n", "", "", "", ErrChunkSize},
		{"zero in front", "03\r\nabc\r\n", "", "", "", ErrChunkSize},
		{"overflow", "ffffffffffffffff1\r\nabc\r\n", "", "", "", ErrChunkSize},
		{"bare LF after size", "3\nabc\r\n0\r\n\r\n", "", "", "", ErrChunkSize},
		{"CR twice after size", "3\r\r\nabc\r\n", "", "", "", ErrChunkSize},
		{"LF in extension", "3;a\nabc\r\n0\r\n\r\n", "", "", "", ErrChunkExtension},
		{"long extension", "3;" + strings.Repeat("a", 300) + "\r\nabc", "", "", "", ErrChunkExtension},
		{"bare LF after data", "3\r\nabc\n0\r\n\r\n", "abc", "", "", ErrChunkEnd},
		{"data too long", "3\r\nabcd\r\n0\r\n\r\n", "abc", "", "", ErrChunkEnd},
		{"bare LF in trailer", "0\r\nX: y\n\r\n", "", "", "", ErrBareLF},
		{"bare LF at the end", "0\r\n\n", "", "", "", ErrBareLF},
		{"folded trailer", "0\r\nX: y\r\n z\r\n\r\n", "", "", "", ErrFolding},
		{"long trailer", "0\r\nX: " + strings.Repeat("y", MaxTrailerBytes), "", "", "", ErrHeadTooLarge},
		{"truncated data", "5\r\nabc", "abc", "", "", ErrTruncated},
		{"truncated end", "3\r\nabc\r\n0\r\n", "abc", "", "", ErrTruncated},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, step := range []int{1, 2, 3, 7, 1 << 20} {
				content, trailer, rest, err := decode(Chunked, 0, tc.in, step)
				if !errors.Is(err, tc.err) {
					t.Fatalf("in steps of %d: error is %v, want %v", step, err, tc.err)
				}
				if err == nil && (content != tc.content || trailer != tc.trailer || rest != tc.rest) {
					t.Errorf("in steps of %d: %q %q %q, want %q %q %q", step, content, trailer, rest, tc.content, tc.trailer, tc.rest)
				}
			}
		})
	}
}

func TestOtherBodies(t *testing.T) {
	if c, _, rest, err := decode(Length, 3, "abcd", 2); c != "abc" || rest != "d" || err != nil {
		t.Errorf("length: %q %q %v", c, rest, err)
	}
	if c, _, _, err := decode(Length, 3, "ab", 2); c != "ab" || !errors.Is(err, ErrTruncated) {
		t.Errorf("truncated length: %q %v", c, err)
	}
	if c, _, _, err := decode(UntilClose, 0, "abcd", 3); c != "abcd" || err != nil {
		t.Errorf("until close: %q %v", c, err)
	}
	if c, _, rest, err := decode(NoBody, 0, "abcd", 3); c != "" || rest != "abcd" || err != nil {
		t.Errorf("no body: %q %q %v", c, rest, err)
	}
}
