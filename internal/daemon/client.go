package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNotRunning says that nothing answers in the run directory.
var ErrNotRunning = errors.New("no mesh is running")

// Client talks to the control plane of one run directory. It holds no
// connection between calls and may be used by any number of goroutines.
type Client struct {
	socket string
	owner  int // uid whose mesh it must be
	http   http.Client
	server atomic.Int32 // process that serves the socket; 0 until connected, and if it cannot be seen
}

// NewClient names the run directory; "" is the current user's default. The mesh
// must be the user's own.
func NewClient(runDir string) *Client { return NewClientOf(runDir, os.Geteuid()) }

// NewClientOf is NewClient for the mesh of another user, whom the caller trusts.
func NewClientOf(runDir string, owner int) *Client {
	if runDir == "" {
		runDir = DefaultRunDir()
	}
	c := &Client{socket: filepath.Join(runDir, controlSocket), owner: owner}
	c.http.Transport = &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
	}
	return c
}

// dial connects to the control socket. What answers there is believed, and what
// it says is executed, so it must be the user's own: neither the directory (below
// /tmp for who has no XDG_RUNTIME_DIR) nor the socket may be another user's.
func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	if err := checkRunDir(filepath.Dir(c.socket), c.owner); err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, err
	}
	pid, err := checkPeer(conn.(*net.UnixConn), c.owner)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c.server.Store(pid)
	return conn, nil
}

// checkPeer wants the socket at the other end to have been opened by the given
// user, and returns the process that did (unix(7), SO_PEERCRED).
func checkPeer(conn *net.UnixConn, uid int) (pid int32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("ask who serves the control socket: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, credErr); err != nil {
		return 0, fmt.Errorf("ask who serves the control socket: %w", err)
	}
	if int(cred.Uid) != uid {
		return 0, fmt.Errorf("%w: user %d serves its control socket", errForeign, cred.Uid)
	}
	return cred.Pid, nil
}

// Status asks what runs. It returns ErrNotRunning if nothing does.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.call(ctx, http.MethodGet, "/v1/status", nil, &s)
}

// Pods lists the workloads, sorted by namespace and name.
func (c *Client) Pods(ctx context.Context) ([]Pod, error) {
	var pods []Pod
	return pods, c.call(ctx, http.MethodGet, "/v1/pods", nil, &pods)
}

// Restart replaces the named workloads (NAME, NS/NAME; a pod or an owner) one
// after the other and returns the pods it restarts.
func (c *Client) Restart(ctx context.Context, targets []string) ([]string, error) {
	var names []string
	return names, c.call(ctx, http.MethodPost, "/v1/restart", targets, &names)
}

// Remove takes workload sets of the files (NAME, NS/NAME) out of what is wanted,
// until files are applied again, and returns when their programs have ended.
func (c *Client) Remove(ctx context.Context, targets []string) error {
	return c.call(ctx, http.MethodPost, "/v1/remove", targets, nil)
}

// Down stops every workload and then the control plane itself. It returns when
// all workloads have ended; an error may tell which have not.
func (c *Client) Down(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/down", nil, nil)
}

// Run registers a program.
func (c *Client) Run(ctx context.Context, r RunRequest) (RunResponse, error) {
	var out RunResponse
	if err := c.call(ctx, http.MethodPost, "/v1/run", r, &out); err != nil {
		return RunResponse{}, err
	}
	runDir, err := filepath.Abs(filepath.Dir(c.socket))
	if err != nil {
		return RunResponse{}, fmt.Errorf("run directory: %w", err)
	}
	if rel, err := filepath.Rel(runDir, out.Bootstrap); err != nil || !filepath.IsLocal(rel) {
		return RunResponse{}, fmt.Errorf("the control plane names the file %q, which is not below %s: is it of the same version?", out.Bootstrap, runDir)
	}
	return out, nil
}

// LogRequest chooses what Logs copies.
type LogRequest struct {
	Targets   []string // NAME or NS/NAME of pods or owners; none is all
	Namespace string   // only these; "" is all
	Container string   // "" is all but the proxy, istio-proxy is the proxy's own log
	Follow    bool     // go on until ctx ends
	Tail      int      // only the last lines of each program; negative is all
}

// Logs copies what programs wrote to w, each line prefixed by pod and container
// if there are several.
func (c *Client) Logs(ctx context.Context, w io.Writer, r LogRequest) error {
	q := url.Values{
		"target": r.Targets, "namespace": {r.Namespace}, "container": {r.Container},
		"follow": {strconv.FormatBool(r.Follow)}, "tail": {strconv.Itoa(r.Tail)},
	}
	resp, err := c.send(ctx, http.MethodGet, "/v1/logs?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	if over := r.Follow && ctx.Err() != nil; err != nil && !over {
		return c.explain(ctx, err)
	}
	return nil
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	switch err := json.NewDecoder(resp.Body).Decode(out); {
	case err != nil && ctx.Err() != nil:
		return c.explain(ctx, err)
	case err != nil:
		return fmt.Errorf("read the control plane's answer: %w", err)
	}
	return nil
}

// send returns a 2xx response whose body the caller closes.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(data)
	}
	ctx, watch := c.watch(ctx)
	req, err := http.NewRequestWithContext(ctx, method, "http://vitrine"+path, body)
	if err != nil {
		watch.end()
		watch.cancel(nil)
		return nil, fmt.Errorf("make request: %w", err)
	}
	resp, err := c.http.Do(req)
	watch.end()
	if err != nil {
		defer watch.cancel(nil)
		return nil, c.explain(ctx, err)
	}
	resp.Body = answer{resp.Body, watch.cancel}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	var e apiError
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || json.Unmarshal(data, &e) != nil || e.Error == "" {
		return nil, fmt.Errorf("control plane answered %s: %s", resp.Status, bytes.TrimSpace(data))
	}
	return nil, errors.New(e.Error)
}

// interruptedError is a context.Canceled in the words of a user; it says what goes on.
type interruptedError string

func (e interruptedError) Error() string { return "interrupted" + string(e) }
func (interruptedError) Unwrap() error   { return context.Canceled }

// explain turns the error of a request that got no answer, or not all of it, into
// what its user can do about it.
func (c *Client) explain(ctx context.Context, err error) error {
	stopped := (*stoppedError)(nil)
	runDir := filepath.Dir(c.socket)
	left := func() string {
		n := len(livePods(runDir))
		if n == 0 {
			return ""
		}
		return fmt.Sprintf(" and has left %s running: %s takes over what runs, %s stops it",
			Count(n, "workload"), CommandLine(runDir, "up"), CommandLine(runDir, "down"))
	}
	switch {
	case errors.As(context.Cause(ctx), &stopped):
		return stopped
	case errors.Is(ctx.Err(), context.Canceled):
		return interruptedError("")
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		if text := left(); text != "" {
			return fmt.Errorf("%w: the control plane is gone%s", ErrNotRunning, text)
		}
		return fmt.Errorf("%w (nothing answers on %s): start one with %s or %s",
			ErrNotRunning, c.socket, CommandLine(runDir, "up -f FILE"), CommandLine(runDir, "run"))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("the control plane ended before its answer did%s", left())
	case errors.Is(err, errForeign):
		return errors.Unwrap(err) // without the made-up URL
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the mesh of %s belongs to another user: name your own with --run-dir", runDir)
	}
	return fmt.Errorf("ask the control plane: %w", err)
}
