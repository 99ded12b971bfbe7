package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestStoppedBySignal: a command that waits for the control plane ends by a signal,
// says so in one line, and its exit code names the signal.
func TestStoppedBySignal(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "vt-") //nolint:usetesting // short: the paths of Unix sockets are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan context.CancelCauseFunc, 1) // of the command that is asked for next
	silent := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		(<-asked)(signalled(syscall.SIGTERM))
		<-r.Context().Done()
	})}
	ended := make(chan error, 1)
	go func() { ended <- silent.Serve(ln) }()
	t.Cleanup(func() {
		silent.Close()
		<-ended
	})
	for _, args := range [][]string{
		{"ps"},
		{"ps", "-o", "json"},
		{"query", "up"},
		{"graph"},
		{"logs"},
		{"logs", "-f", "web"},
		{"down"},
		{"restart", "web"},
		{"run", "--service", "web", "--", "true"},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		asked <- cancel
		var out, errOut bytes.Buffer
		c := &cli{out: &out, errOut: &errOut}
		code := c.run(ctx, append([]string{"--run-dir", dir}, args...))
		if code != 143 || errOut.String() != "vitrine: interrupted\n" || out.Len() > 0 {
			t.Errorf("%q: exit code %d, output %q, errors %q", args, code, out.String(), errOut.String())
		}
		cancel(nil)
	}
}
