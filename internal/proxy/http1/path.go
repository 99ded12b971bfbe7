package http1

import "bytes"

// normalizePath brings an origin-form target into the one spelling that both
// routing and the recipient see, in place; the result is never longer:
//   - backslashes are slashes, several slashes are one,
//   - percent-encoded unreserved characters are decoded (RFC 3986, 6.2.2.2),
//   - dot segments are removed (5.2.4), those too that are set off by encoded
//     slashes; other encoded slashes stay as they are.
//
// That is Istio's MERGE_SLASHES, and as much of DECODE_AND_MERGE_SLASHES as
// path traversal needs. The query is left alone. A malformed percent-encoding
// in the path is refused.
func normalizePath(target []byte) ([]byte, error) {
	if simplePath(target) {
		return target, nil
	}
	path, query := target, []byte(nil)
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		path, query = target[:i], target[i:]
	}
	path, err := decodeUnreserved(path)
	if err != nil {
		return nil, err
	}
	path = removeDots(decodeTraversal(path))
	n := len(path) + copy(target[len(path):], query)
	return target[:n], nil
}

// simplePath reports whether nothing is to be done.
func simplePath(p []byte) bool {
	for i, c := range p {
		switch c {
		case '?':
			return true
		case '%', '\\':
			return false
		case '/':
			if i+1 < len(p) && (p[i+1] == '/' || p[i+1] == '.') {
				return false
			}
		}
	}
	return true
}

// decodeUnreserved decodes what needs no encoding, and turns backslashes into
// slashes.
func decodeUnreserved(p []byte) ([]byte, error) {
	out := p[:0]
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch c {
		case '\\':
			c = '/'
		case '%':
			if i+2 >= len(p) {
				return nil, ErrEscape
			}
			hi, lo := unhex(p[i+1]), unhex(p[i+2])
			if hi > 15 || lo > 15 {
				return nil, ErrEscape
			}
			v := hi<<4 | lo
			if v == 0 {
				return nil, ErrEscape
			}
			if !unreserved(v) {
				out = append(out, p[i:i+3]...)
				i += 2
				continue
			}
			c = v
			i += 2
		}
		out = append(out, c)
	}
	return out, nil
}

// decodeTraversal decodes the encoded slashes and backslashes next to a dot
// segment: "..%2fadmin" climbs in whatever decodes it later.
func decodeTraversal(p []byte) []byte {
	out := p[:0]
	for i := 0; i < len(p); {
		n := encodedSlash(p[i:])
		if n == 3 && (dotsBefore(out) || dotsAfter(p[i+3:])) {
			out = append(out, '/')
			i += 3
			continue
		}
		if n == 0 {
			n = 1
		}
		out = append(out, p[i:i+n]...)
		i += n
	}
	return out
}

// encodedSlash is 3 if p begins with %2f or %5c, else 0.
func encodedSlash(p []byte) int {
	if len(p) >= 3 && p[0] == '%' && (p[1] == '2' && p[2]|0x20 == 'f' || p[1] == '5' && p[2]|0x20 == 'c') {
		return 3
	}
	return 0
}

// dotsBefore reports whether out ends with a dot segment.
func dotsBefore(out []byte) bool {
	n := 0
	for n < len(out) && out[len(out)-1-n] == '.' {
		n++
	}
	if n != 1 && n != 2 {
		return false
	}
	before := out[:len(out)-n]
	return len(before) == 0 || before[len(before)-1] == '/' || len(before) >= 3 && encodedSlash(before[len(before)-3:]) == 3
}

// dotsAfter reports whether p begins with a dot segment.
func dotsAfter(p []byte) bool {
	n := 0
	for n < len(p) && p[n] == '.' {
		n++
	}
	return (n == 1 || n == 2) && (n == len(p) || p[n] == '/' || encodedSlash(p[n:]) == 3)
}

// removeDots removes empty and dot segments from a path that begins with a slash.
func removeDots(p []byte) []byte {
	out := p[:1]
	for i := 1; i < len(p); {
		end := bytes.IndexByte(p[i:], '/')
		last := end < 0
		if last {
			end = len(p) - i
		}
		seg := p[i : i+end]
		i += end + 1
		switch {
		case len(seg) == 0, len(seg) == 1 && seg[0] == '.':
			continue
		case len(seg) == 2 && seg[0] == '.' && seg[1] == '.':
			out = out[:len(out)-1]
			out = out[:bytes.LastIndexByte(out, '/')+1]
			if len(out) == 0 {
				out = p[:1]
			}
			continue
		}
		out = append(out, seg...)
		if !last {
			out = append(out, '/')
		}
	}
	return out
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// unhex is the value of a hexadecimal digit; above 15 for anything else.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 16
}
