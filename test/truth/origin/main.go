// Command origin is the server of the truth test. It speaks HTTP/1 and HTTP/2
// on :8080, gRPC on :9090 and echoes TCP on :7000, does what each request asks
// for, and writes down in its ledger how each one ended. Nothing in it knows of
// a mesh.
//
// SERVICE, POD_NAME and LEDGER name its service, itself and the directory of
// its ledger.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vitrine-mesh/vitrine/test/truth/internal/ledger"
)

type origin struct {
	service string
	ledger  *ledger.File

	mu    sync.Mutex
	holds map[string]*hold
}

// hold is a request that waits to be told how to end.
type hold struct {
	arrived chan struct{} // closed when it is here
	end     chan string   // how it is to end
	ended   chan struct{} // closed when it has
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	file, err := ledger.Open(os.Getenv("LEDGER"), os.Getenv("POD_NAME"))
	if err != nil {
		return err
	}
	o := &origin{service: os.Getenv("SERVICE"), ledger: file, holds: map[string]*hold{}}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return o.serveHTTP(ctx) })
	g.Go(func() error { return o.serveGRPC(ctx) })
	g.Go(func() error { return o.serveTCP(ctx) })
	return g.Wait()
}

func (o *origin) serveHTTP(ctx context.Context) error {
	l, err := net.Listen("tcp", ":8080")
	if err != nil {
		return err
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	mux := http.NewServeMux()
	mux.HandleFunc("/status/{code}", o.status)
	mux.HandleFunc("/echo", o.echo)
	mux.HandleFunc("/chunked", o.chunked)
	mux.HandleFunc("/hold/{id}", o.hold)
	mux.HandleFunc("/await/{id}", o.await)
	mux.HandleFunc("/end/{id}", o.end)
	mux.HandleFunc("/ended/{id}", o.ended)
	// What probes ask does not come through the mesh and is not in the ledger.
	mux.HandleFunc("/ready", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Handler: mux, Protocols: protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 250}}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return server.Shutdown(grace)
}

func (o *origin) count(code int, flags string) {
	o.ledger.Request(ledger.Entry{Service: o.service, Protocol: "http", Code: code, Flags: flags})
}

// status answers with the code that the path asks for.
func (o *origin) status(w http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(r.PathValue("code"))
	if err != nil {
		code = http.StatusBadRequest
	}
	defer o.count(code, "-")
	io.Copy(io.Discard, r.Body)
	if code == http.StatusNoContent || code == http.StatusNotModified {
		w.WriteHeader(code)
		return
	}
	w.Header().Set("Content-Length", "3")
	w.WriteHeader(code)
	io.WriteString(w, "ok\n")
}

// echo answers with the request's body.
func (o *origin) echo(w http.ResponseWriter, r *http.Request) {
	defer o.count(http.StatusOK, "-")
	data, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Write(data)
}

// chunked answers in several chunks and a trailer.
func (o *origin) chunked(w http.ResponseWriter, r *http.Request) {
	defer o.count(http.StatusOK, "-")
	io.Copy(io.Discard, r.Body)
	w.Header().Set("Trailer", "X-Sum")
	for range 5 {
		io.WriteString(w, "a piece of the answer\n")
		w.(http.Flusher).Flush()
	}
	w.Header().Set("X-Sum", "110")
}

func (o *origin) held(id string) *hold {
	o.mu.Lock()
	defer o.mu.Unlock()
	h := o.holds[id]
	if h == nil {
		h = &hold{arrived: make(chan struct{}), end: make(chan string, 1), ended: make(chan struct{})}
		o.holds[id] = h
	}
	return h
}

// hold keeps a request until /end says how it is to end, or its client leaves.
func (o *origin) hold(w http.ResponseWriter, r *http.Request) {
	h := o.held(r.PathValue("id"))
	defer close(h.ended)
	code := 0
	if r.URL.Query().Has("begin") { // half of the response, at once
		code = http.StatusOK
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
	}
	close(h.arrived)
	reset := "UR"
	if r.ProtoMajor == 1 {
		reset = "UC"
	}
	select {
	case <-r.Context().Done():
		o.count(code, "DC")
	case how := <-h.end:
		if how == "answer" {
			o.count(http.StatusOK, "-")
			io.WriteString(w, "ok\n")
			return
		}
		if code == 0 {
			code = http.StatusServiceUnavailable // what the proxy answers for a server that did not
		}
		o.count(code, reset)
		o.abort(w, r)
	}
}

// abort ends the response as a crashing server would: with a reset.
func (o *origin) abort(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor > 1 {
		panic(http.ErrAbortHandler)
	}
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// await answers when a held request is here.
func (o *origin) await(w http.ResponseWriter, r *http.Request) {
	o.signal(w, o.held(r.PathValue("id")).arrived)
}

// ended answers when a held request has ended.
func (o *origin) ended(w http.ResponseWriter, r *http.Request) {
	o.signal(w, o.held(r.PathValue("id")).ended)
}

func (o *origin) signal(w http.ResponseWriter, c chan struct{}) {
	code := http.StatusOK
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	select {
	case <-c:
	case <-timer.C:
		code = http.StatusRequestTimeout
	}
	o.count(code, "-")
	w.WriteHeader(code)
}

func (o *origin) end(_ http.ResponseWriter, r *http.Request) {
	o.count(http.StatusOK, "-")
	o.held(r.PathValue("id")).end <- r.URL.Query().Get("how")
}

// serveTCP echoes each connection to its end and writes down its bytes.
func (o *origin) serveTCP(ctx context.Context) error {
	l, err := net.Listen("tcp", ":7000")
	if err != nil {
		return err
	}
	var conns sync.WaitGroup
	defer conns.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		conns.Go(func() {
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			defer c.Close()
			o.ledger.Fact("tcp_opened", 1)
			buf := make([]byte, 32<<10)
			for {
				n, err := c.Read(buf)
				o.ledger.Fact("tcp_received", n)
				if err != nil {
					break
				}
				if n, err = c.Write(buf[:n]); err != nil {
					break
				}
				o.ledger.Fact("tcp_sent", n)
			}
			o.ledger.Fact("tcp_closed", 1)
		})
	}
}
