package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// What belongs to one message must never be taken for another one: the rest of a body
// for a request, or what a server sends unasked for a response.

// TestRestOfABody: what comes of a body after its request was answered is no request.
func TestRestOfABody(t *testing.T) {
	var smuggled atomic.Int64
	origin := serveRaw(t, func(c *net.TCPConn) {
		for r := bufio.NewReader(c); ; {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			switch req.URL.Path {
			case "/early": // says no, and does not read the body
				_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
				_, _ = io.Copy(io.Discard, r)
				return
			case "/smuggled":
				smuggled.Add(1)
			}
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, origin), nil)
	upload := h.dial(t)
	fmt.Fprint(upload, "POST /early HTTP/1.1\r\nHost: web\r\nContent-Length: 1000000\r\n\r\nsome")
	answers := bufio.NewReader(upload)
	if res, err := http.ReadResponse(answers, nil); err != nil || res.StatusCode != http.StatusRequestEntityTooLarge || !res.Close {
		t.Fatal(res, err)
	}
	// Meanwhile others use the proxy, and with it the memory of that request.
	other := h.dial(t)
	responses := bufio.NewReader(other)
	for until := time.Now().Add(lingerTime + lingerTime/2); time.Now().Before(until); {
		_, _ = io.WriteString(other, "GET /other HTTP/1.1\r\nHost: web\r\n\r\n")
		res, err := http.ReadResponse(responses, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
	}
	_, _ = io.WriteString(upload, "GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n"+strings.Repeat("x", 100))
	if res, err := http.ReadResponse(answers, nil); err == nil {
		t.Errorf("a second answer: %d", res.StatusCode)
	}
	if smuggled.Load() > 0 {
		t.Error("the rest of a body was served as a request")
	}
}

// TestLastPieceOfABody: the end of a body that could not be sent on, since the server
// was gone, is no request. Whether the server has gone when the piece is written is a
// matter of luck, so there are many tries.
func TestLastPieceOfABody(t *testing.T) {
	var smuggled atomic.Int64
	origin := serveRaw(t, func(c *net.TCPConn) {
		for r := bufio.NewReader(c); ; {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			switch req.URL.Path {
			case "/dies":
				_, _ = r.Peek(1)
				_ = c.SetLinger(0)
				return // a reset, as of a program that is killed
			case "/smuggled":
				smuggled.Add(1)
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, origin), nil)
	const last = "GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n"
	for try := range 300 {
		c, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(c, "POST /dies HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n\r\nx", 1+len(last))
		pause(t.Context(), time.Duration(100+try%200)*time.Microsecond)
		_, _ = io.WriteString(c, last)
		_ = c.(*net.TCPConn).CloseWrite()
		r := bufio.NewReader(c)
		if res, err := http.ReadResponse(r, nil); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			if second, err := http.ReadResponse(r, nil); err == nil {
				t.Errorf("one request had two answers: %d, then %d", res.StatusCode, second.StatusCode)
			}
		}
		c.Close()
		if smuggled.Load() > 0 {
			t.Fatalf("after %d tries the end of a body was served as a request", try)
		}
	}
}

// TestUnaskedBytes: what a server sends after a response without a body is not the
// answer to somebody else's request.
func TestUnaskedBytes(t *testing.T) {
	stray := make(chan struct{})
	origin := serveRaw(t, func(c *net.TCPConn) {
		for r := bufio.NewReader(c); ; {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if req.Method == http.MethodGet {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				continue
			}
			_, _ = io.WriteString(c, map[string]string{
				http.MethodHead: "HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n",
				http.MethodPut:  "HTTP/1.1 204 No Content\r\n\r\n",
			}[req.Method])
			pause(t.Context(), time.Millisecond) // the response has been passed on
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
			stray <- struct{}{}
		}
	})
	h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, origin), nil)
	a, b := h.dial(t), h.dial(t)
	ra, rb := bufio.NewReader(a), bufio.NewReader(b)
	for try := range 50 {
		method := []string{http.MethodHead, http.MethodPut}[try%2]
		fmt.Fprintf(a, "%s /a HTTP/1.1\r\nHost: web\r\n\r\n", method)
		if _, err := http.ReadResponse(ra, &http.Request{Method: method}); err != nil {
			t.Fatal(err)
		}
		await(t, stray)
		_, _ = io.WriteString(b, "GET /b HTTP/1.1\r\nHost: web\r\n\r\n")
		res, err := http.ReadResponse(rb, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(res.Body); string(body) != "ok" {
			t.Fatalf("after %s of another client: %d %q", method, res.StatusCode, body)
		}
	}
}

// TestServerThatReadsNoMore: a server that answers early, keeps the connection and reads
// no more of the body holds up neither the client's next request nor the drain. Bodies
// are of sizes around what the sockets' buffers hold, so that the last piece is stuck.
func TestServerThatReadsNoMore(t *testing.T) {
	hold, answered := make(chan struct{}), make(chan struct{})
	origin := serveRaw(t, func(c *net.TCPConn) {
		_ = c.SetReadBuffer(4096)
		if _, err := http.ReadRequest(bufio.NewReaderSize(c, 100)); err != nil {
			return
		}
		<-answered
		_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
		<-hold
	})
	defer close(hold)
	h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, origin), nil)
	var clients sync.WaitGroup
	for size := 3_900_000; size < 4_100_000; size += 4000 {
		c := h.dial(t)
		clients.Go(func() {
			go func() { // stuck, too, where the buffers are full
				fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n\r\n", size)
				_, _ = c.Write(make([]byte, size))
			}()
			r := bufio.NewReader(c)
			res, err := http.ReadResponse(r, nil)
			if err != nil || res.Close {
				return
			}
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: elsewhere.invalid\r\nConnection: close\r\n\r\n")
			var timeout net.Error // an end will do: what is stuck cannot be taken back
			if _, err := http.ReadResponse(r, nil); errors.As(err, &timeout) && timeout.Timeout() {
				t.Errorf("body of %d bytes: the next request hangs: %v", size, err)
			}
		})
	}
	until(t, "the bodies are stuck", func() bool {
		before := received(t, h)
		pause(t.Context(), 300*time.Millisecond)
		return before > 0 && received(t, h) == before
	})
	close(answered)
	clients.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := h.p.Drain(ctx); err != nil {
		t.Error(err)
	}
}

// received is how much the endpoints' kernels took in connections that are open.
func received(t *testing.T, h *hop) (n uint64) {
	t.Helper()
	for _, c := range h.p.connections(mesh.Outbound) {
		up := c.watch.up.Load()
		if up == nil {
			continue
		}
		raw, err := up.NetConn().(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) { // fails where the connection has just ended
			if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
				n += info.Bytes_acked
			}
		})
	}
	return n
}
