package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/vitrine-mesh/vitrine/test/truth/internal/order"
)

// patience bounds each connection's silence.
const patience = 30 * time.Second

// meter counts the bytes of a connection.
type meter struct {
	net.Conn
	in, out int
}

func dial(addr string) (*meter, *bufio.Reader, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, nil, err
	}
	m := &meter{Conn: c}
	return m, bufio.NewReader(m), nil
}

func (m *meter) Read(p []byte) (int, error) {
	_ = m.SetReadDeadline(time.Now().Add(patience))
	n, err := m.Conn.Read(p)
	m.in += n
	return n, err
}

func (m *meter) Write(p []byte) (int, error) {
	n, err := m.Conn.Write(p)
	m.out += n
	return n, err
}

// message is a request and the answer it must get.
type message struct {
	request string
	method  string
	code    int
}

// shape is the i-th of all shapes of HTTP/1 messages that have a definite end,
// over and over.
func shape(i int) message {
	shapes := [...]message{
		{"GET /status/200 HTTP/1.1\r\nHost: %s\r\n\r\n", "GET", 200},
		{"HEAD /status/200 HTTP/1.1\r\nHost: %s\r\n\r\n", "HEAD", 200},
		{"GET /status/204 HTTP/1.1\r\nHost: %s\r\n\r\n", "GET", 204},
		{"GET /status/304 HTTP/1.1\r\nHost: %s\r\n\r\n", "GET", 304},
		{"GET /status/404 HTTP/1.1\r\nHost: %s\r\n\r\n", "GET", 404},
		{"GET /status/500 HTTP/1.1\r\nHost: %s\r\n\r\n", "GET", 500},
		{"GET /status/503 HTTP/1.1\r\nHost: %s\r\n\r\n", "GET", 503},
		{"GET /chunked HTTP/1.1\r\nHost: %s\r\n\r\n", "GET", 200},
		{"POST /echo HTTP/1.1\r\nHost: %s\r\nContent-Length: 11\r\n\r\nhello there", "POST", 200},
		{"POST /echo HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n there\r\n0\r\n\r\n", "POST", 200},
	}
	return shapes[i%len(shapes)]
}

// answer reads one response to its end.
func (w *work) answer(r *bufio.Reader, method string) (int, error) {
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// http1 sends N requests of the mix on each of Conns connections, one after the
// other or, pipelined, all at once, and adds up their bytes.
func (w *work) http1(o *order.Order, pipelined bool) {
	var all sync.WaitGroup
	defer all.Wait()
	for range o.Conns {
		all.Go(func() {
			c, r, err := dial(o.Addr)
			if err != nil {
				w.fail(err)
				return
			}
			defer c.Close()
			if pipelined {
				var requests strings.Builder
				for i := range o.N {
					fmt.Fprintf(&requests, shape(i).request, o.Addr)
				}
				io.WriteString(c, requests.String())
			}
			for i := range o.N {
				m := shape(i)
				if !pipelined {
					fmt.Fprintf(c, m.request, o.Addr)
				}
				code, err := w.answer(r, m.method)
				if err != nil || code != m.code {
					w.failf("%.30q, pipelined %t: %d, %v", m.request, pipelined, code, err)
				}
				w.count("http", code, "", "-")
				if err != nil {
					return
				}
			}
			w.fact("request_bytes", c.out)
			w.fact("response_bytes", c.in)
		})
	}
}

// raw sends a text N times, each on a connection of its own, and reads one
// response. Nothing but a response with status Code is right.
func (w *work) raw(o *order.Order) {
	for range o.N {
		func() {
			c, r, err := dial(o.Addr)
			if err != nil {
				w.fail(err)
				return
			}
			defer c.Close()
			io.WriteString(c, o.Text)
			code, err := w.answer(r, http.MethodGet)
			if err != nil || code != o.Code {
				w.failf("%.60q: %d, %v; want %d", o.Text, code, err, o.Code)
			}
			w.count("http", code, "", o.Flags)
		}()
	}
}

// rate sends N requests, Rate per second, on Conns connections. It falls behind
// its schedule if the answers do, and catches up.
func (w *work) rate(o *order.Order) {
	begin := time.Now()
	due := make(chan struct{}, o.N)
	var all sync.WaitGroup
	for range o.Conns {
		all.Go(func() { w.sequence(o, due) })
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for sent := 0; sent < o.N; {
		<-tick.C
		for want := min(o.N, int(time.Since(begin).Seconds()*float64(o.Rate))); sent < want; sent++ {
			due <- struct{}{}
		}
	}
	close(due)
	all.Wait()
	w.fact("milliseconds", int(time.Since(begin).Milliseconds()))
}

// sequence sends a request for each one that is due.
func (w *work) sequence(o *order.Order, due <-chan struct{}) {
	c, r, err := dial(o.Addr)
	if err != nil {
		w.fail(err)
		return
	}
	defer c.Close()
	request := []byte("GET /status/200 HTTP/1.1\r\nHost: " + o.Addr + "\r\n\r\n")
	counted := 0
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.tally.Add(okCounts(o.Service, counted))
	}()
	for range due {
		if _, err := c.Write(request); err != nil {
			w.fail(err)
			return
		}
		code, err := w.answer(r, http.MethodGet)
		if err != nil || code != http.StatusOK {
			w.failf("rate: %d, %v", code, err)
			w.count("http", code, "", "-")
			return
		}
		counted++
	}
}
