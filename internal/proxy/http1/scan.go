package http1

import (
	"bytes"
	"encoding/binary"
)

// Limits of a head.
const (
	MaxHeadBytes = 60 << 10 // Envoy's max_request_headers_kb
	MaxFields    = 100      // Envoy's max_headers_count
)

// HeadScanner finds the end of a head in a buffer that grows, without looking
// at a byte twice.
type HeadScanner struct {
	line int // where the current line begins
	next int // where to look on
}

// Scan looks for the empty line that ends the head at the front of buf, which
// must begin with what earlier calls saw. It returns the length of the head,
// the empty line included, or 0 if more is needed.
func (s *HeadScanner) Scan(buf []byte) (int, error) {
	for {
		i := bytes.IndexByte(buf[s.next:], '\n')
		if i < 0 {
			s.next = len(buf)
			if len(buf) > MaxHeadBytes {
				return 0, ErrHeadTooLarge
			}
			return 0, s.firstByte(buf)
		}
		end := s.next + i
		if end == 0 || buf[end-1] != '\r' {
			return 0, ErrBareLF
		}
		if end-1 == s.line {
			if end+1 > MaxHeadBytes {
				return 0, ErrHeadTooLarge
			}
			if s.line == 0 {
				return 0, ErrRequestLine
			}
			return end + 1, nil
		}
		s.line, s.next = end+1, end+1
	}
}

// firstByte refuses what cannot become HTTP/1 before a line end comes.
func (s *HeadScanner) firstByte(buf []byte) error {
	if len(buf) > 0 && !isToken[buf[0]] && buf[0] != '\r' {
		return ErrMethod
	}
	return nil
}

// isToken marks tchar of RFC 9110, 5.6.2.
//
//nolint:gochecknoglobals // immutable table
var isToken = table("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

// isHost marks the characters of a host that is a name (reg-name of RFC 3986, 3.2.2),
// without escapes.
//
//nolint:gochecknoglobals // immutable table
var isHost = table("!$&'()*+,-.;=_~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

func table(members string) (t [256]bool) {
	for i := range len(members) {
		t[members[i]] = true
	}
	return t
}

func token(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	for _, c := range b {
		if !isToken[c] {
			return false
		}
	}
	return true
}

// text reports whether b is free of control characters other than tab.
func text(b []byte) bool {
	const (
		ones = 0x0101010101010101
		high = 0x8080808080808080
	)
	for len(b) >= 8 {
		w := binary.LittleEndian.Uint64(b)
		// A byte below 0x20 or equal to 0x7f sets its high bit; bytes from 0x80
		// are masked out. Tab is told apart below.
		low := (w - ones*0x20) & ^w & high
		del := w ^ ones*0x7f
		if low|((del-ones) & ^del & high) != 0 && !plain(b[:8]) {
			return false
		}
		b = b[8:]
	}
	return plain(b)
}

func plain(b []byte) bool {
	for _, c := range b {
		if c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func trimOWS(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// is reports whether b equals the lower-case ASCII string s, letter case aside.
func is(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != s[i] {
			return false
		}
	}
	return true
}

func equalFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		if 'A' <= x && x <= 'Z' {
			x |= 0x20
		}
		if 'A' <= y && y <= 'Z' {
			y |= 0x20
		}
		if x != y {
			return false
		}
	}
	return true
}

// nextItem cuts the first element off a comma-separated list; empty elements
// come out empty.
func nextItem(list []byte) (item, rest []byte) {
	item, rest, _ = bytes.Cut(list, []byte{','})
	return trimOWS(item), rest
}

// hasItem reports whether a comma-separated list has the element s (lower
// case), parameters aside.
func hasItem(list []byte, s string) bool {
	for len(list) > 0 {
		var item []byte
		item, list = nextItem(list)
		if i := bytes.IndexByte(item, ';'); i >= 0 {
			item = trimOWS(item[:i])
		}
		if is(item, s) {
			return true
		}
	}
	return false
}

// parseLength reads a Content-Length: digits only, below 10^18.
func parseLength(b []byte) (uint64, bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}
