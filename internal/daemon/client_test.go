package daemon

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// serveControl answers on the control socket of a new run directory.
func serveControl(t *testing.T, h http.Handler) (runDir string) {
	t.Helper()
	runDir = filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(runDir, 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(runDir, controlSocket))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	server.Listener.Close()
	server.Listener = ln
	server.Start()
	t.Cleanup(server.Close)
	return runDir
}

// A control plane tells its client what to execute. Another user who makes the
// run directory first must not be believed.
func TestClientBelievesOnlyItsOwner(t *testing.T) {
	asked := 0
	runDir := serveControl(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		reply(w, Status{Version: "x"}, nil)
	}))
	c := NewClient(runDir)
	if s, err := c.Status(t.Context()); err != nil || s.Version != "x" || asked != 1 {
		t.Fatalf("of a directory of one's own: %+v, %v, asked %d times", s, err, asked)
	}
	for _, mode := range []os.FileMode{0o720, 0o702, 0o777} {
		if err := os.Chmod(runDir, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Status(t.Context()); !errors.Is(err, errForeign) || asked != 1 {
			t.Errorf("mode %o: %v, asked %d times", mode, err, asked)
		}
	}
	if err := os.Chmod(runDir, 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(runDir, link); err != nil {
		t.Fatal(err)
	}
	if _, err := NewClient(link).Status(t.Context()); !errors.Is(err, errForeign) || asked != 1 {
		t.Errorf("a link: %v, asked %d times", err, asked)
	}
	foreign := "/" // root's, for everyone else
	if os.Geteuid() == 0 {
		foreign = runDir
		if err := os.Chown(runDir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := NewClient(foreign).Status(t.Context()); !errors.Is(err, errForeign) || asked != 1 {
		t.Errorf("a directory of another user: %v, asked %d times", err, asked)
	}
	if _, err := NewClient(filepath.Join(runDir, "none")).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no directory: %v", err)
	}
}

func TestCheckPeer(t *testing.T) {
	runDir := serveControl(t, http.NotFoundHandler())
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", filepath.Join(runDir, controlSocket))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if pid, err := checkPeer(conn.(*net.UnixConn), os.Geteuid()); err != nil || int(pid) != os.Getpid() {
		t.Errorf("process %d, %v, want %d", pid, err, os.Getpid())
	}
	if _, err := checkPeer(conn.(*net.UnixConn), os.Geteuid()+1); !errors.Is(err, errForeign) {
		t.Errorf("another user: %v", err)
	}
}

// What is executed is this installation's own proxy with a file of the run
// directory, whatever the answer says.
func TestRunExecutesOnlyOurProxy(t *testing.T) {
	answer := map[string]any{}
	runDir := serveControl(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(answer)
	}))
	c := NewClient(runDir)
	for _, path := range []string{"", "/tmp/bootstrap.json", runDir + "/../bootstrap.json", "bootstrap.json"} {
		answer = map[string]any{"exec": []string{"/bin/sh", "-c", "true"}, "bootstrap": path}
		if got, err := c.Run(t.Context(), RunRequest{}); err == nil {
			t.Errorf("bootstrap %q: accepted as %+v", path, got)
		}
	}
	answer["bootstrap"] = runDir + "/pods/default/api/bootstrap.json"
	got, err := c.Run(t.Context(), RunRequest{})
	if err != nil {
		t.Fatal(err)
	}
	command, err := got.Command(&Config{ProxyBinary: "/bin/true"})
	want := "/bin/true sidecar --bootstrap " + runDir + "/pods/default/api/bootstrap.json"
	if err != nil || strings.Join(command, " ") != want {
		t.Errorf("%q, %v; want %q", command, err, want)
	}
}

// A control plane that dies while it is asked is not told as a fault of reading.
func TestControlPlaneDiesMeanwhile(t *testing.T) {
	for name, said := range map[string]string{"before its answer": "", "within its answer": "a line\n"} {
		t.Run(name, func(t *testing.T) {
			runDir := serveControl(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if said != "" {
					_, _ = io.WriteString(w, said)
					_ = http.NewResponseController(w).Flush()
				}
				panic(http.ErrAbortHandler) // closes the connection
			}))
			var out strings.Builder
			err := NewClient(runDir).Logs(t.Context(), &out, LogRequest{})
			if want := "the control plane ended before its answer did"; err == nil || err.Error() != want || out.String() != said {
				t.Errorf("%v after %q, want %s", err, out.String(), want)
			}
		})
	}
}
