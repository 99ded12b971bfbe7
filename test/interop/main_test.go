//go:build interop

package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
	"github.com/vitrine-mesh/vitrine/internal/meshtest"
)

// Arguments that make the test binary a program of the mesh.
const (
	originArg = "interop-origin"
	callerArg = "interop-caller"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == originArg {
		fmt.Fprintln(os.Stderr, serveOrigin(os.Args[2]))
		os.Exit(1)
	}
	if len(os.Args) == 3 && os.Args[1] == callerArg {
		call(os.Args[2])
	}
	os.Exit(m.Run())
}

// call asks until it was answered 100 times, and then waits to be ended.
func call(address string) {
	for answered := 0; answered < 100; {
		resp, err := http.Get(address)
		if err != nil {
			continue
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			answered++
		}
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
	os.Exit(0)
}

// serveOrigin answers HTTP/1.1 and h2c on 7000, 8080 and 8081, TLS on 7000, too, and
// echoes bytes on 9000.
func serveOrigin(name string) error {
	secure, err := serverTLS()
	if err != nil {
		return err
	}
	echo, err := net.Listen("tcp", ":9000")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s := http.Server{
		Protocols: &protocols, ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s %s", name, r.Proto, r.Host)
		}),
	}
	failed := make(chan error)
	for _, addr := range []string{":7000", ":8081", ":8080"} {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		if addr == ":7000" {
			ln = &eitherListener{Listener: ln, secure: secure}
		}
		go func() { failed <- s.Serve(ln) }()
	}
	return <-failed
}

// services of the mesh: as many as the demo has.
var services = []string{"web", "cart", "catalog", "ratings", "checkout", "payment", "currency", "shipping", "notifier", "kv", "recommendations"}

// shop is the YAML of the mesh: every service has an HTTP port, a TCP port, one
// for HTTP/2 and one that does not say what it speaks. box is a workload
// without ports that ends when boxEnds does.
func shop(t *testing.T, more ...string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range slices.Concat([]string{"box"}, services, more) {
		ports, command := "[{containerPort: 8080}, {containerPort: 7000}, {containerPort: 8081}, {containerPort: 9000}]", fmt.Sprintf("[%q, %s, %s]", self, originArg, name)
		grace := 2
		probe := "readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}"
		if name == "box" {
			ports, probe, grace = "[]", "", 600
			command = fmt.Sprintf(`[sh, -c, 'trap "" TERM; while [ ! -e %s ]; do sleep 0.1; done']`, boxEnds())
		}
		fmt.Fprintf(&b, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s, version: v1}}
    spec:
      terminationGracePeriodSeconds: %[5]d
      containers:
      - name: main
        command: %[3]s
        ports: %[2]s
        %[4]s
---
`, name, ports, command, probe, grace)
		if name == "box" {
			continue
		}
		fmt.Fprintf(&b, `
apiVersion: v1
kind: Service
metadata: {name: %s}
spec:
  selector: {app: %[1]s}
  ports:
  - {name: http, port: 8080}
  - {name: tcp, port: 9000}
  - {name: http2, port: 8081}
  - {name: any, port: 7000}
---
`, name)
	}
	return b.String()
}

// boxEnds is the file at whose sight the programs of box end.
func boxEnds() string { return fmt.Sprintf("/tmp/vitrine-interop-%d", os.Getpid()) }

// endBox makes sure that box does not hold up the end of a mesh.
func endBox(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		if err := os.WriteFile(boxEnds(), nil, 0o600); err != nil {
			t.Error(err)
		}
	})
}

// tool is where `make interop` put a program.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run the tests by `make interop`", err)
	}
	return path
}

// start runs a program until the end of the test, gives it grace to end, and
// shows its output if the test fails.
func start(t *testing.T, grace time.Duration, name string, args ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(grace, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		if !kill.Stop() {
			t.Errorf("%s did not end within %s: %v", name, grace, err)
		}
		log.Close()
		if t.Failed() {
			out, _ := os.ReadFile(log.Name())
			t.Logf("%s:\n%.20000s", name, out)
		}
	})
}

// meshRun is a running mesh.
type meshRun struct {
	file   string // its YAML
	runDir string
	client *daemon.Client
	status daemon.Status
}

// startMesh starts a mesh and waits until every program is ready.
func startMesh(t *testing.T, yaml string, args ...string) *meshRun {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "vt-") //nolint:usetesting // short: the paths of Unix sockets are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "mesh.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	m := &meshRun{file: file, runDir: filepath.Join(dir, "run")}
	t.Cleanup(func() { _ = os.Remove(boxEnds()) }) // after the mesh has ended
	start(t, time.Minute, tool(t, "vitrine"), append([]string{
		"up", "-f", file, "--run-dir", m.runDir, "--data-dir", filepath.Join(dir, "data"), "--scrape-interval", "500ms",
		"--prometheus-addr", "127.0.0.1:0", "--control-addr", "127.0.0.1:0",
	}, args...)...)
	if strings.Contains(yaml, boxEnds()) {
		endBox(t)
	}
	m.client = daemon.NewClient(m.runDir)
	meshtest.Eventually(t, func() error {
		m.status, err = m.client.Status(t.Context())
		if err == nil && !m.status.Settled {
			err = fmt.Errorf("%d of %d workloads are ready", m.status.Ready, m.status.Workloads)
		}
		return err
	})
	return m
}

// cli runs vitrine for the mesh.
func (m *meshRun) cli(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return command(t, tool(t, "vitrine"), append([]string{"--run-dir", m.runDir}, args...)...)
}

func (m *meshRun) pod(t *testing.T, app string) daemon.Pod {
	t.Helper()
	pods, err := m.client.Pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods {
		if strings.HasPrefix(p.Name, app+"-") {
			return p
		}
	}
	t.Fatalf("no pod of %s", app)
	return daemon.Pod{}
}

// command runs a program to its end.
func command(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// get fetches a URL, whose status must be 200.
func get(t *testing.T, address string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s: %.300s", address, resp.Status, body)
	}
	return string(body), err
}

// scalar asks a Prometheus API for a query of one value.
func scalar(t *testing.T, base, query string) (string, error) {
	t.Helper()
	body, err := get(t, base+"/api/v1/query?"+url.Values{"query": {query}}.Encode())
	if err != nil {
		return "", err
	}
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return "", err
	}
	if len(answer.Data.Result) != 1 {
		return "", errors.New(query + ": " + body)
	}
	return fmt.Sprint(answer.Data.Result[0].Value[1]), nil
}
