// Package program is what the Go programs of the demo shop have in common:
// settings from the environment, an HTTP server that ends on SIGTERM, and calls
// to other services with kept-alive connections.
//
// It knows nothing of a mesh: no metrics, no tracing, no header is passed on.
// Everything in it may be called by any number of goroutines.
package program

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// Env is the value of an environment variable, or def if it is not set.
func Env(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

// Context ends when the program is told to end.
func Context() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
}

// Listen opens the port of environment variable PORT and says so on standard
// output.
func Listen(name, defaultPort string) (net.Listener, error) {
	l, err := net.Listen("tcp", ":"+Env("PORT", defaultPort))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(os.Stdout, "%s listening on %s\n", name, l.Addr())
	return l, nil
}

// Exit ends the program with err as its last words, if there is one.
func Exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Serve answers HTTP requests until ctx ends, then finishes those under way.
// long counts connections that were taken over, such as WebSockets; they are
// waited for.
func Serve(ctx context.Context, name string, handler http.Handler, long *sync.WaitGroup) error {
	l, err := Listen(name, "8080")
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("%s: %w", name, err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if long != nil {
		long.Wait()
	}
	return nil
}

// Reply writes v as JSON.
func Reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client is gone, nobody to tell
}

// Fail writes an error as JSON.
func Fail(w http.ResponseWriter, code int, text string) {
	Reply(w, code, map[string]string{"error": text})
}

// Client calls one service.
type Client struct {
	base string
	http *http.Client
}

// NewClient makes a client of the service at base. With h2 it speaks HTTP/2
// without TLS from the first byte.
func NewClient(base string, h2 bool) *Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 32, IdleConnTimeout: time.Minute, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!h2)
	transport.Protocols.SetUnencryptedHTTP2(h2)
	return &Client{base: base, http: &http.Client{Transport: transport, Timeout: 10 * time.Second}}
}

// Call sends a request with body as JSON, if it is not nil, and decodes a 2xx
// answer into answer, if that is not nil. It returns the status, 0 if there was
// none; err is nil exactly if the status is 2xx and the answer was read.
func (c *Client) Call(ctx context.Context, method, path string, body, answer any) (int, error) {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return 0, fmt.Errorf("encode request: %w", err)
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, reader)
	if err != nil {
		return 0, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
		return resp.StatusCode, fmt.Errorf("%s %s%s: read answer: %w", method, c.base, path, err)
	case resp.StatusCode/100 != 2:
		return resp.StatusCode, fmt.Errorf("%s %s%s: %s", method, c.base, path, resp.Status)
	case answer != nil:
		if err := json.Unmarshal(data, answer); err != nil {
			return resp.StatusCode, fmt.Errorf("%s %s%s: decode answer: %w", method, c.base, path, err)
		}
	}
	return resp.StatusCode, nil
}
