package pod

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// socketPath yields a path for the pod's socket that is short enough for
// sockaddr_un (108 bytes) whatever the run directory is called: it goes through
// an open descriptor of the directory. release must be called when the path is
// not used any more.
func socketPath(runDir string) (path string, release func(), err error) {
	dir, err := os.Open(runDir)
	if err != nil {
		return "", nil, fmt.Errorf("open run directory: %w", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), SocketFile), func() { dir.Close() }, nil
}

// Listen opens the pod's socket. The caller must hold the pod's Lock, so a
// socket that exists is a dead one and is replaced. Closing leaves the file.
func Listen(ctx context.Context, runDir string) (net.Listener, error) {
	path, release, err := socketPath(runDir)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", filepath.Join(runDir, SocketFile), err)
	}
	if ul, ok := l.(*net.UnixListener); ok {
		ul.SetUnlinkOnClose(false) // the descriptor in its path is closed by then
	}
	return l, nil
}

// Messages of the pod's socket: GET /status, GET /watch (a Status per line, one
// at once and one after each change), POST /stop, /signal and /restart.
type (
	stopRequest struct {
		Handover bool `json:"handover"` // see Runtime.Stop
	}
	signalRequest struct {
		Container string `json:"container"` // "" is all
		Signal    int    `json:"signal"`
	}
	restartRequest struct {
		Container string `json:"container"` // "" is all
	}
)

// Client talks to the process of one pod. It may be used by any number of
// goroutines; Close ends its idle connections.
type Client struct {
	name string
	http http.Client
}

// NewClient makes a client of the pod with the given run directory; nothing is
// connected yet.
func NewClient(runDir string) *Client {
	return &Client{name: filepath.Base(runDir), http: http.Client{Transport: &http.Transport{
		MaxIdleConns: 1,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			path, release, err := socketPath(runDir)
			if err != nil {
				return nil, err
			}
			defer release()
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Watch calls f with the pod's state now and after each change (changes in quick
// succession may come as one), until ctx or the connection ends.
func (c *Client) Watch(ctx context.Context, f func(*Status)) error {
	resp, err := c.send(ctx, http.MethodGet, "/watch", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		s := new(Status)
		if err := dec.Decode(s); err != nil {
			return fmt.Errorf("watch pod %s: %w", c.name, err)
		}
		f(s)
	}
}

// Status asks for the pod's state.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	resp, err := c.send(ctx, http.MethodGet, "/status", nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	s := new(Status)
	if err := json.NewDecoder(resp.Body).Decode(s); err != nil {
		return nil, fmt.Errorf("status of pod %s: %w", c.name, err)
	}
	return s, nil
}

// Stop begins the pod's graceful end (Runtime.Stop) and does not wait for it.
func (c *Client) Stop(ctx context.Context, handover bool) error {
	return c.post(ctx, "/stop", stopRequest{Handover: handover})
}

// Signal sends a signal to the program of a container; "" is all.
func (c *Client) Signal(ctx context.Context, container string, sig syscall.Signal) error {
	return c.post(ctx, "/signal", signalRequest{Container: container, Signal: int(sig)})
}

// Restart restarts the program of a container in place; "" is all.
func (c *Client) Restart(ctx context.Context, container string) error {
	return c.post(ctx, "/restart", restartRequest{Container: container})
}

func (c *Client) post(ctx context.Context, path string, body any) error {
	resp, err := c.send(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// send returns a 2xx answer, whose body the caller closes.
func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://pod"+path, bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask pod %s: %w", c.name, err)
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return nil, fmt.Errorf("ask pod %s: %s: %s", c.name, resp.Status, bytes.TrimSpace(text))
	}
	return resp, nil
}

// Handler serves the pod's socket.
func (r *Runtime) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		s, _ := r.Status()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s) // the client is gone: nobody to tell
	})
	mux.HandleFunc("GET /watch", r.serveWatch)
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, req *http.Request) {
		if in, ok := decode[stopRequest](w, req); ok {
			r.Stop(in.Handover)
			w.WriteHeader(http.StatusNoContent)
		}
	})
	mux.HandleFunc("POST /signal", func(w http.ResponseWriter, req *http.Request) {
		in, ok := decode[signalRequest](w, req)
		if !ok {
			return
		}
		if in.Signal < 1 || in.Signal > 64 {
			http.Error(w, "signal "+strconv.Itoa(in.Signal)+" does not exist", http.StatusBadRequest)
			return
		}
		if r.Signal(in.Container, syscall.Signal(in.Signal)) == 0 {
			http.Error(w, "no such program is running", http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /restart", func(w http.ResponseWriter, req *http.Request) {
		in, ok := decode[restartRequest](w, req)
		if !ok {
			return
		}
		if r.Restart(in.Container) == 0 {
			http.Error(w, "no such container", http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

func (r *Runtime) serveWatch(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Content-Type", "application/jsonl")
	rc := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	for {
		s, changed := r.Status()
		if enc.Encode(s) != nil || rc.Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-req.Context().Done():
			return
		}
	}
}

func decode[T any](w http.ResponseWriter, req *http.Request) (v T, ok bool) {
	if err := json.NewDecoder(io.LimitReader(req.Body, 4<<10)).Decode(&v); err != nil {
		http.Error(w, "body: "+err.Error(), http.StatusBadRequest)
		return v, false
	}
	return v, true
}
