package detect

import (
	"bytes"
)

// HTTP2Preface is the client connection preface of RFC 9113 section 3.4. All of it
// is wanted: "PRI * HTTP/2.0" alone is also how a client of another protocol
// could start, and a fragmented preface must not be filed as HTTP/1.
const HTTP2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

func http2Preface(prefix []byte) verdict { return literal(prefix, HTTP2Preface) }

// methods are the methods of the IANA registry (RFC 9110 section 16.1) and
// those of UPnP and caches that are in wide use. Only these are waited for
// without a declaration: any word could be a method, but then an unknown text
// protocol would be held back until its first line ends (see requestLine).
//
//nolint:gochecknoglobals // a constant list; Go has no constant slices
var methods = [...]string{
	"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE",
	"ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "COPY", "LABEL", "LINK", "LOCK",
	"MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE",
	"ORDERPATCH", "PROPFIND", "PROPPATCH", "QUERY", "REBIND", "REPORT", "SEARCH", "UNBIND",
	"UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE", "UPDATEREDIRECTREF", "VERSION-CONTROL",
	"M-SEARCH", "NOTIFY", "PURGE", "SUBSCRIBE", "UNSUBSCRIBE",
}

// http1Line looks for "METHOD SP … SP HTTP/1." in the first line. What stands
// between is the codec's to judge: a request that is almost right must be
// rejected as HTTP, not passed on as opaque bytes. One empty line in front is
// skipped, as RFC 9112 section 2.2 asks of servers.
//
// certain is set with maybe when the method and the space behind it are there,
// so that a line longer than MaxPrefix can be filed.
func http1Line(prefix []byte) (v verdict, certain bool) {
	switch literal(prefix, "\r\n") {
	case yes:
		prefix = prefix[2:]
	case maybe:
		return maybe, false
	case no:
	}
	rest, v := afterMethod(prefix)
	switch {
	case v == no && requestLine(prefix):
		return yes, true
	case v != yes:
		return v, false
	}
	line, _, ended := bytes.Cut(rest, []byte("\n"))
	switch {
	case bytes.Contains(line, []byte(" HTTP/1.")):
		return yes, true
	case ended:
		return no, false
	}
	return maybe, true
}

// afterMethod cuts a known method from prefix and returns what follows, the
// space included.
func afterMethod(prefix []byte) (rest []byte, v verdict) {
	for _, m := range methods {
		switch literal(prefix, m) {
		case yes:
			if len(prefix) == len(m) {
				v = maybe
			} else if prefix[len(m)] == ' ' {
				return prefix[len(m):], yes
			}
		case maybe:
			v = maybe
		case no:
		}
	}
	return nil, v
}

// requestLine reports whether prefix begins with a whole request line of
// HTTP/1.0 or 1.1, whatever the method (RFC 9112 section 3). Of other protocols
// only Icecast's begins like this: its sources send a stream without a length
// after "SOURCE /mount HTTP/1.0". A proxy writes a request's head in one piece, so
// what the client's proxy took for HTTP the server's does, too.
func requestLine(prefix []byte) bool {
	line, _, ended := bytes.Cut(prefix, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	method, rest, ok := bytes.Cut(line, []byte(" "))
	_, version, ok2 := bytes.Cut(rest, []byte(" "))
	if !ended || !ok || !ok2 || len(method) == 0 || string(method) == "SOURCE" {
		return false
	}
	for _, c := range method {
		if !tokenByte(c) {
			return false
		}
	}
	return string(version) == "HTTP/1.1" || string(version) == "HTTP/1.0"
}

// tokenByte is tchar of RFC 9110 section 5.6.2.
func tokenByte(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) >= 0
}
