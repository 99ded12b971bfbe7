package http1

import (
	"errors"
	"strings"
	"testing"
)

// parse scans and parses one head as a connection does.
func parse(head string) (*Request, error) {
	buf := []byte(head)
	var s HeadScanner
	n, err := s.Scan(buf)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errIncomplete
	}
	r := new(Request)
	return r, r.Parse(buf[:n])
}

var errIncomplete = errors.New("incomplete")

// TestRequestHeads holds each accepted head to what is written for it, and each
// refused one to its reason.
func TestRequestHeads(t *testing.T) {
	const host = "Host: a\r\n"
	for _, tc := range []struct {
		name, in, want string
		err            error
	}{
		{"plain", "GET / HTTP/1.1\r\nHost: a\r\nX-A:  b \r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n", nil},
		{"host first", "GET / HTTP/1.1\r\nX: y\r\nHOST:a:80\r\n\r\n", "GET / HTTP/1.1\r\nHost: a:80\r\nX: y\r\n", nil},
		{"length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 03\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n", nil},
		{"chunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: Chunked\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n", nil},
		{"version 1.0 goes on as 1.1", "GET / HTTP/1.0\r\n" + host + "\r\n", "GET / HTTP/1.1\r\nHost: a\r\n", nil},
		{"hop by hop", "GET / HTTP/1.1\r\n" + host + "Connection: close, X-Own\r\nX-Own: 1\r\nKeep-Alive: 3\r\nProxy-Connection: close\r\nX: y\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n", nil},
		{"te trailers", "GET / HTTP/1.1\r\n" + host + "Connection: TE\r\nTE: gzip, trailers;q=0.5\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: trailers\r\n", nil},
		{"te other", "GET / HTTP/1.1\r\n" + host + "TE: gzip\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n", nil},
		{"expect", "PUT / HTTP/1.1\r\n" + host + "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n", "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n", nil},
		{"upgrade", "GET / HTTP/1.1\r\n" + host + "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", nil},
		{"upgrade without option", "GET / HTTP/1.1\r\n" + host + "Upgrade: websocket\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n", nil},
		{"h2c", "GET / HTTP/1.1\r\n" + host + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n", nil},
		{"h2c in a list", "GET / HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket, H2C\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n", nil},
		{"two upgrades", "GET / HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n", nil},
		{"metadata of a peer", "GET / HTTP/1.1\r\n" + host + "X-Envoy-Peer-Metadata: x\r\nx-envoy-peer-metadata-id: y\r\nX-Forwarded-Client-Cert: z\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n", nil},
		{"absolute", "GET http://a/x?y HTTP/1.1\r\n" + host + "\r\n", "GET /x?y HTTP/1.1\r\nHost: a\r\n", nil},
		{"absolute without path", "GET http://a HTTP/1.1\r\n" + host + "\r\n", "GET / HTTP/1.1\r\nHost: a\r\n", nil},
		{"absolute with query only", "GET http://a?q HTTP/1.1\r\n" + host + "\r\n", "GET /?q HTTP/1.1\r\nHost: a\r\n", nil},
		{"absolute 1.0 without host", "GET http://abc HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: abc\r\n", nil},
		{"options", "OPTIONS * HTTP/1.1\r\n" + host + "\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n", nil},
		{"connect", "CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n", "CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n", nil},
		{"connect to an address", "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]\r\n\r\n", "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n", nil},
		{"host with port", "GET / HTTP/1.1\r\nHost: a_b.c:080\r\n\r\n", "GET / HTTP/1.1\r\nHost: a_b.c:080\r\n", nil},
		{"host with an empty port", "GET / HTTP/1.1\r\nHost: a:\r\n\r\n", "GET / HTTP/1.1\r\nHost: a:\r\n", nil},
		{"escaped host", "GET / HTTP/1.1\r\nHost: a%2D\r\n\r\n", "GET / HTTP/1.1\r\nHost: a%2D\r\n", nil},
		{"address", "GET / HTTP/1.1\r\nHost: [fe80::1%25en0]:80\r\n\r\n", "GET / HTTP/1.1\r\nHost: [fe80::1%25en0]:80\r\n", nil},
		{"high bytes in a value", "GET / HTTP/1.1\r\n" + host + "X: caf\xc3\xa9\ttab\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: caf\xc3\xa9\ttab\r\n", nil},
		{"underscore in a name", "GET / HTTP/1.1\r\n" + host + "X_Forwarded_For: b\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: b\r\n", nil},

		{"length and chunked", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "", ErrLengthAndCoding},
		{"two lengths that differ", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 4\r\n\r\n", "", ErrTwoLengths},
		{"two equal lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 3\r\n\r\n", "", ErrTwoLengths},
		{"list of lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3, 3\r\n\r\n", "", ErrLength},
		{"signed length", "POST / HTTP/1.1\r\n" + host + "Content-Length: +3\r\n\r\n", "", ErrLength},
		{"negative length", "POST / HTTP/1.1\r\n" + host + "Content-Length: -3\r\n\r\n", "", ErrLength},
		{"hexadecimal length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 0x3\r\n\r\n", "", ErrLength},
		{"empty length", "POST / HTTP/1.1\r\n" + host + "Content-Length:\r\n\r\n", "", ErrLength},
		{"overflowing length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 18446744073709551617\r\n\r\n", "", ErrLength},
		{"xchunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n", "", ErrCoding},
		{"identity, chunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: identity, chunked\r\n\r\n", "", ErrCoding},
		{"two codings", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "", ErrTwoCodings},
		{"space before colon", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding : chunked\r\n\r\n", "", ErrSpaceBeforeColon},
		{"vertical tab", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \vchunked\r\n\r\n", "", ErrControl},
		{"folded coding", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding:\r\n chunked\r\n\r\n", "", ErrFolding},
		{"folded field", "GET / HTTP/1.1\r\n" + host + "X: a\r\n\tb\r\n\r\n", "", ErrFolding},
		{"bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", "", ErrBareLF},
		{"bare LF after a field", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", "", ErrBareLF},
		{"bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", "", ErrBareLF},
		{"chunked in 1.0", "POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n", "", ErrCodingIn10},
		{"no host", "GET / HTTP/1.1\r\nX: y\r\n\r\n", "", ErrNoHost},
		{"empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", "", ErrNoHost},
		{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "", ErrTwoHosts},
		{"host with user", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", "", ErrHost},
		{"host with path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "", ErrHost},
		{"host with two ports", "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", "", ErrHost},
		{"host with a port that is none", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", "", ErrHost},
		{"host without a name", "GET / HTTP/1.1\r\nHost: :80\r\n\r\n", "", ErrHost},
		{"host with a broken escape", "GET / HTTP/1.1\r\nHost: a%2\r\n\r\n", "", ErrHost},
		{"host with a bracket", "GET / HTTP/1.1\r\nHost: a[b]\r\n\r\n", "", ErrHost},
		{"host with an open bracket", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", "", ErrHost},
		{"host with something after an address", "GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n", "", ErrHost},
		{"address without brackets", "GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", "", ErrHost},
		{"absolute form of another host", "GET http://evil/ HTTP/1.1\r\nHost: a\r\n\r\n", "", ErrHostMismatch},
		{"absolute form with user", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "", ErrTarget},
		{"connect of another host", "CONNECT b:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "", ErrHostMismatch},
		{"connect without port", "CONNECT b HTTP/1.1\r\nHost: b\r\n\r\n", "", ErrTarget},
		{"connect to two ports", "CONNECT b:1:443 HTTP/1.1\r\nHost: b:443\r\n\r\n", "", ErrTarget},
		{"connect to what is no address", "CONNECT [b]:443 HTTP/1.1\r\nHost: [b]:443\r\n\r\n", "", ErrTarget},
		{"connect to an escaped name", "CONNECT %41:443 HTTP/1.1\r\nHost: %41:443\r\n\r\n", "", ErrTarget},
		{"connect to port 0", "CONNECT b:0 HTTP/1.1\r\nHost: b:0\r\n\r\n", "", ErrTarget},
		{"NUL in a value", "GET / HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n", "", ErrControl},
		{"bare CR in a value", "GET / HTTP/1.1\r\n" + host + "X: a\rb\r\n\r\n", "", ErrBareCR},
		{"DEL in a value", "GET / HTTP/1.1\r\n" + host + "X: 123456789\x7f\r\n\r\n", "", ErrControl},
		{"fragment", "GET /a#b HTTP/1.1\r\n" + host + "\r\n", "", ErrFragment},
		{"fragment in a query", "GET /a?b#c HTTP/1.1\r\n" + host + "\r\n", "", ErrFragment},
		{"control in the target", "GET /a\x01 HTTP/1.1\r\n" + host + "\r\n", "", ErrTarget},
		{"two spaces", "GET  / HTTP/1.1\r\n" + host + "\r\n", "", ErrRequestLine},
		{"no version", "GET /\r\n" + host + "\r\n", "", ErrRequestLine},
		{"lower-case version", "GET / http/1.1\r\n" + host + "\r\n", "", ErrRequestLine},
		{"version 2.0", "GET / HTTP/2.0\r\n" + host + "\r\n", "", ErrVersion},
		{"version 1.2", "GET / HTTP/1.2\r\n" + host + "\r\n", "", ErrVersion},
		{"version 0.9", "GET /\r\n\r\n", "", ErrRequestLine},
		{"method with a slash", "GE/T / HTTP/1.1\r\n" + host + "\r\n", "", ErrMethod},
		{"space in front", " GET / HTTP/1.1\r\n" + host + "\r\n", "", ErrMethod},
		{"asterisk with GET", "GET * HTTP/1.1\r\n" + host + "\r\n", "", ErrTarget},
		{"no colon", "GET / HTTP/1.1\r\n" + host + "Nonsense\r\n\r\n", "", ErrFieldLine},
		{"empty name", "GET / HTTP/1.1\r\n" + host + ": x\r\n\r\n", "", ErrFieldLine},
		{"bad name", "GET / HTTP/1.1\r\n" + host + "X[a]: x\r\n\r\n", "", ErrFieldName},
		{"other expectation", "GET / HTTP/1.1\r\n" + host + "Expect: 200-ok\r\n\r\n", "", ErrExpectation},
		{"connection names host", "GET / HTTP/1.1\r\n" + host + "Connection: host\r\n\r\n", "", ErrConnection},
		{"connection names length", "POST / HTTP/1.1\r\n" + host + "Connection: close, Content-Length\r\nContent-Length: 3\r\n\r\n", "", ErrConnection},
		{"malformed escape", "GET /a%2 HTTP/1.1\r\n" + host + "\r\n", "", ErrEscape},
		{"encoded NUL", "GET /a%00 HTTP/1.1\r\n" + host + "\r\n", "", ErrEscape},
		{"too many fields", "GET / HTTP/1.1\r\n" + host + strings.Repeat("X: y\r\n", MaxFields) + "\r\n", "", ErrTooManyFields},
		{"too large", "GET / HTTP/1.1\r\n" + host + "X: " + strings.Repeat("y", MaxHeadBytes) + "\r\n\r\n", "", ErrHeadTooLarge},
		{"too large without an end", "GET /" + strings.Repeat("y", MaxHeadBytes), "", ErrHeadTooLarge},
		{"incomplete", "GET / HTTP/1.1\r\nHost: a\r\n", "", errIncomplete},
		{"TLS", "\x16\x03\x01", "", ErrMethod},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := parse(tc.in)
			if !errors.Is(err, tc.err) {
				t.Fatalf("error is %v, want %v", err, tc.err)
			}
			if tc.err != nil {
				return
			}
			if got := string(r.AppendHead(nil)); got != tc.want {
				t.Errorf("written as\n%q, want\n%q", got, tc.want)
			}
		})
	}
}

func TestNormalizePath(t *testing.T) {
	for in, want := range map[string]string{
		"/":                       "/",
		"/a/b?c=/../d//e":         "/a/b?c=/../d//e",
		"/a/../admin":             "/admin",
		"/a/./b/.":                "/a/b/",
		"/a/b/..":                 "/a/",
		"/..":                     "/",
		"/../../etc/passwd":       "/etc/passwd",
		"//admin":                 "/admin",
		"/a//b///c/":              "/a/b/c/",
		`/a\..\admin`:             "/admin",
		"/%2e%2e/admin":           "/admin",
		"/a/%2E%2e%2fadmin":       "/admin",
		"/a/..%5Cadmin":           "/admin",
		"/a/..%2f..%2fadmin":      "/admin",
		"/a%2f..%2f..":            "/",
		"/a%2f.":                  "/a/",
		"/@scope%2fpkg":           "/@scope%2fpkg",
		"/a%2f..b":                "/a%2f..b",
		"/%61dmin":                "/admin",
		"/a%20b%C3%A9":            "/a%20b%C3%A9",
		"/...":                    "/...",
		"/.well-known/x":          "/.well-known/x",
		"/a/..?x=%2e%2e":          "/?x=%2e%2e",
		"/%252e%252e/x":           "/%252e%252e/x",
		"/a;b=c/../d":             "/d",
		"/caf\xc3\xa9//x":         "/caf\xc3\xa9/x",
		"/a/b/../../../../c/./d/": "/c/d/",
	} {
		got, err := normalizePath([]byte(in))
		if err != nil || string(got) != want {
			t.Errorf("%q becomes %q, %v; want %q", in, got, err, want)
		}
		again, err := normalizePath([]byte(string(got)))
		if err != nil || string(again) != want {
			t.Errorf("%q is not stable: %q, %v", want, again, err)
		}
	}
}

func TestResponseHeads(t *testing.T) {
	for _, tc := range []struct {
		name, in  string
		head      bool
		framing   Framing
		keepAlive bool
		want      string
		err       error
	}{
		{"length", "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\n", false, Length, true, "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n", nil},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, Chunked, true, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", nil},
		{"until close", "HTTP/1.1 200 OK\r\n\r\n", false, UntilClose, false, "HTTP/1.1 200 OK\r\n", nil},
		{"close", "HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n", false, Length, false, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", nil},
		{"1.0", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false, Length, false, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", nil},
		{"1.0 keep-alive", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", false, Length, true, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", nil},
		{"head", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, NoBody, true, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", nil},
		{"304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false, NoBody, true, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n", nil},
		{"204 with length", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", false, NoBody, true, "HTTP/1.1 204 No Content\r\n", nil},
		{"no reason", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", false, Length, true, "HTTP/1.1 200 \r\nContent-Length: 0\r\n", nil},
		{"length and chunked", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", false, 0, false, "", ErrLengthAndCoding},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", false, 0, false, "", ErrTwoLengths},
		{"gzip coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", false, 0, false, "", ErrCoding},
		{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 5\n\n", false, 0, false, "", ErrBareLF},
		{"status of two digits", "HTTP/1.1 20 OK\r\n\r\n", false, 0, false, "", ErrStatusLine},
		{"status 099", "HTTP/1.1 099 OK\r\n\r\n", false, 0, false, "", ErrStatusLine},
		{"HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", false, 0, false, "", ErrStatusLine},
		{"not HTTP", "SSH-2.0-OpenSSH\r\n\r\n", false, 0, false, "", ErrStatusLine},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s HeadScanner
			n, err := s.Scan([]byte(tc.in))
			var r Response
			if err == nil {
				err = r.Parse([]byte(tc.in)[:n], tc.head, false)
			}
			if !errors.Is(err, tc.err) {
				t.Fatalf("error is %v, want %v", err, tc.err)
			}
			if tc.err != nil {
				return
			}
			if r.Framing != tc.framing || r.KeepAlive != tc.keepAlive {
				t.Errorf("framing %d, keep-alive %v; want %d, %v", r.Framing, r.KeepAlive, tc.framing, tc.keepAlive)
			}
			if got := string(r.AppendHead(nil, r.Framing)); got != tc.want {
				t.Errorf("written as\n%q, want\n%q", got, tc.want)
			}
		})
	}
}

func TestRejectsHaveNames(t *testing.T) {
	for r := RejectError(1); r < errEnd; r++ {
		if r.Error() == "" {
			t.Errorf("reason %d has no name", r)
		}
	}
}
