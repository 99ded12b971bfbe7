package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"testing"
)

// FuzzRequest: what is written for an accepted request, net/http reads as the
// same request, and this package as well, without a further change.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n",
		"POST //a/../b%2e?c HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n0\r\n\r\n",
		"GET http://a:80?q HTTP/1.0\r\nConnection: keep-alive, x\r\nX: 1\r\n\r\n",
		"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := parse(string(in))
		if err != nil {
			return
		}
		if len(r.Authority) == 0 {
			r.SetAuthority([]byte("default"))
		}
		head := append(r.AppendHead(nil), "\r\n"...)
		got, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(append(slices.Clone(head), strings.Repeat("x", 100)...))))
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", head, err)
		}
		length := int64(r.Length)
		if r.Framing == Chunked {
			length = -1
		}
		if got.Method != string(r.Method) || got.Host != string(r.Authority) || got.ContentLength != length ||
			!r.IsConnect() && got.RequestURI != string(r.Path) {
			t.Fatalf("net/http reads %q as %s %s of %s with length %d", head, got.Method, got.RequestURI, got.Host, got.ContentLength)
		}
		again, err := parse(string(head))
		if err != nil {
			t.Fatalf("%q is refused: %v", head, err)
		}
		if second := append(again.AppendHead(nil), "\r\n"...); !bytes.Equal(second, head) {
			t.Fatalf("%q becomes %q", head, second)
		}
	})
}

// FuzzResponse is FuzzRequest for responses.
func FuzzResponse(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: y\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.0 404\r\nConnection: keep-alive\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var s HeadScanner
		n, err := s.Scan(in)
		if n == 0 || err != nil {
			return
		}
		var r Response
		if r.Parse(slices.Clone(in[:n]), false, false) != nil {
			return
		}
		head := append(r.AppendHead(nil, r.Framing), "\r\n"...)
		got, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), nil)
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", head, err)
		}
		got.Body.Close()
		want := int64(0)
		switch r.Framing {
		case Chunked, UntilClose:
			want = -1
		case Length:
			want = int64(r.Length)
		case NoBody:
			want = got.ContentLength // of the field, which says nothing about the body
		}
		if got.StatusCode != r.Code || got.ContentLength != want {
			t.Fatalf("net/http reads %q as %d with length %d", head, got.StatusCode, got.ContentLength)
		}
	})
}

// FuzzChunked: an accepted chunked body has the content that net/http finds,
// however the bytes arrive.
func FuzzChunked(f *testing.F) {
	f.Add([]byte("3\r\nabc\r\n0\r\n\r\n"), 1)
	f.Add([]byte("3;x\r\nabc\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\nrest"), 5)
	f.Add([]byte("10\r\n0123456789abcdef\r\n0\r\n\r\n"), 100)
	f.Fuzz(func(t *testing.T, in []byte, step int) {
		if step < 1 {
			step = 1
		}
		content, trailer, rest, err := decode(Chunked, 0, string(in), step)
		whole, wholeTrailer, wholeRest, wholeErr := decode(Chunked, 0, string(in), len(in)+1)
		if (err == nil) != (wholeErr == nil) || err == nil && (content != whole || trailer != wholeTrailer || rest != wholeRest) {
			t.Fatalf("in steps of %d: %q %v; at once: %q %v", step, content, err, whole, wholeErr)
		}
		if err != nil {
			return
		}
		got, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(in)))
		if err != nil && !errors.Is(err, io.EOF) || string(got) != content {
			t.Fatalf("net/http finds %q, %v; want %q", got, err, content)
		}
	})
}

func BenchmarkRequest(b *testing.B) {
	in := []byte("GET /index.html?q=1 HTTP/1.1\r\nHost: web.default.svc.cluster.local\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: text/html,application/xhtml+xml\r\nAccept-Encoding: gzip, deflate\r\nCookie: session=0123456789abcdef0123456789abcdef\r\nX-B3-TraceId: 463ac35c9f6413ad48485a3953bb6124\r\n\r\n")
	var r Request
	out := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		var s HeadScanner
		n, err := s.Scan(in)
		if err != nil || n != len(in) {
			b.Fatal(err)
		}
		if err := r.Parse(in); err != nil {
			b.Fatal(err)
		}
		out = r.AppendHead(out[:0])
	}
}
