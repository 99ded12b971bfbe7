package faults

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
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
	"github.com/vitrine-mesh/vitrine/internal/meshtest"
)

// manifest is a small mesh: two services that are called, a program that calls
// them without pause, and one that is only there.
const manifest = `
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        command: [hello, serve]
        ports: [{containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: caller}
spec:
  type: LoadBalancer
  selector: {app: caller}
  ports: [{name: http, port: PORT, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: caller}
spec:
  selector: {matchLabels: {app: caller}}
  template:
    metadata: {labels: {app: caller}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: caller
        command: [hello, poll, "http://web:8080/", "8080"]
        ports: [{containerPort: 8080}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: db
        command: [hello, serve, "5432"]
        ports: [{containerPort: 5432}]
`

// workloads is the number of pods of manifest.
const workloads = 6

// world is one mesh whose control plane is started and killed by the test.
type world struct {
	t          *testing.T
	dir        string
	port       string
	credential *syscall.Credential
	up         *exec.Cmd
	output     bytes.Buffer
	namespaces map[string]*os.File // every network namespace that a pod ever had, held so that none gets its number
	links      []string            // network interfaces of the machine before
}

func newWorld(t *testing.T, asUser bool) *world {
	t.Helper()
	dir := bins.Dir(t)
	port, err := bins.Port()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, port: port, namespaces: map[string]*os.File{}, links: links(t)}
	if asUser {
		w.credential = &syscall.Credential{Uid: meshtest.User, Gid: meshtest.User}
		if err := os.Chown(dir, meshtest.User, meshtest.User); err != nil {
			t.Fatal(err)
		}
	}
	yaml := strings.ReplaceAll(manifest, "PORT", w.port)
	if err := os.WriteFile(filepath.Join(dir, "mesh.yaml"), []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what the control planes said:\n%s", w.output.String())
		}
		for _, ns := range w.namespaces {
			ns.Close()
		}
		for _, p := range w.processes() {
			_ = p.Kill() // it carries our directory in its environment
		}
	})
	return w
}

func (w *world) runDir() string { return filepath.Join(w.dir, "r") }

// command is one of vitrine, which is killed when ctx ends.
func (w *world) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, bins.Path("vitrine"), args...)
	cmd.Dir = w.dir
	cmd.WaitDelay = 10 * time.Second // the pods go on, and what is open in them
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: w.credential}
	cmd.Env = []string{"HOME=" + w.dir, "FAULTS=" + w.dir, "PATH=" + filepath.Join(bins.Root, "bin") + ":/usr/bin:/bin"}
	return cmd
}

// start starts a control plane, without waiting for anything.
func (w *world) start() {
	w.t.Helper()
	w.up = w.command(context.Background(), "up", "-f", "mesh.yaml", "--run-dir", w.runDir(), "--data-dir", filepath.Join(w.dir, "d"),
		"--prometheus-addr", "127.0.0.1:0", "--control-addr", "127.0.0.1:0")
	w.up.Stdout, w.up.Stderr = &w.output, &w.output
	if err := w.up.Start(); err != nil {
		w.t.Fatal(err)
	}
}

// kill ends the control plane without a word.
func (w *world) kill() {
	w.t.Helper()
	if err := w.up.Process.Kill(); err != nil {
		w.t.Fatal(err)
	}
	_ = w.up.Wait() // it was killed
}

// stop ends everything as Ctrl-C does.
func (w *world) stop() {
	w.t.Helper()
	if err := w.up.Process.Signal(syscall.SIGINT); err != nil {
		w.t.Fatal(err)
	}
	kill := time.AfterFunc(meshtest.Patience, func() { _ = w.up.Process.Kill() })
	err := w.up.Wait()
	if !kill.Stop() {
		err = fmt.Errorf("it did not end within %s: %w", meshtest.Patience, err)
	}
	if err != nil {
		w.t.Errorf("vitrine up: %v", err)
	}
}

// pods asks the control plane, which answers its own user only, by the command
// line.
func (w *world) pods() (pods []daemon.Pod, err error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	cmd := w.command(ctx, "ps", "--run-dir", w.runDir(), "-o", "json")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("vitrine ps: %w", err)
	}
	return pods, json.Unmarshal(out, &pods)
}

// settled waits until everything runs and every proxy is told so, and returns
// the pods.
func (w *world) settled() []daemon.Pod {
	w.t.Helper()
	var pods []daemon.Pod
	meshtest.Eventually(w.t, func() error {
		var err error
		if pods, err = w.pods(); err != nil {
			return err
		}
		if len(pods) != workloads {
			return fmt.Errorf("there are %d pods, want %d", len(pods), workloads)
		}
		for i := range pods {
			if p := &pods[i]; !p.Ready || !p.Proxy.Synced || len(p.PIDs) != 1 {
				return fmt.Errorf("%s: ready %t, proxy %+v, processes %v", p.Name, p.Ready, p.Proxy, p.PIDs)
			}
		}
		return nil
	})
	for i := range pods {
		path := fmt.Sprintf("/proc/%d/ns/net", pods[i].PIDs[0])
		ns, err := os.Readlink(path)
		if err != nil {
			w.t.Fatal(err)
		}
		if w.namespaces[ns] != nil {
			continue
		}
		if w.namespaces[ns], err = os.Open(path); err != nil {
			w.t.Fatal(err)
		}
	}
	return pods
}

// calls is how the caller fared so far.
type calls struct {
	OK     int    `json:"ok"`
	Failed int    `json:"failed"`
	Last   string `json:"last"` // error of the last call that failed
}

func (w *world) calls() calls {
	w.t.Helper()
	var c calls
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://127.0.0.1:" + w.port + "/")
	if err != nil {
		w.t.Fatalf("ask the caller: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(body, &c)
	}
	if err != nil {
		w.t.Fatalf("the caller answered %q: %v", body, err)
	}
	return c
}

// flowing waits until the caller has made n more calls, and returns how it fares.
func (w *world) flowing(since calls, n int) calls {
	w.t.Helper()
	var now calls
	meshtest.Eventually(w.t, func() error {
		if now = w.calls(); now.OK < since.OK+n {
			return fmt.Errorf("%d calls succeeded in time", now.OK-since.OK)
		}
		return nil
	})
	return now
}

// processes are all that a control plane of this world started, directly or not.
func (w *world) processes() []*os.Process {
	var found []*os.Process
	entries, err := os.ReadDir("/proc")
	if err != nil {
		w.t.Error(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, err := os.FindProcess(pid) // a pidfd: what is read below is of this very process
		if err != nil {
			continue
		}
		environ, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if !bytes.Contains(environ, []byte("FAULTS="+w.dir+"\x00")) {
			_ = p.Release()
			continue
		}
		found = append(found, p)
	}
	return found
}

// wantOnly fails the test unless exactly what belongs to pods exists: three
// processes for each and the control plane's, their namespaces, sockets and
// directories, and nothing on the machine itself.
func (w *world) wantOnly(pods []daemon.Pod, controlPlane bool) {
	w.t.Helper()
	meshtest.Eventually(w.t, func() error {
		var errs []error
		want := map[int]string{}
		wantNS := map[string]bool{}
		wantSockets := map[string]bool{}
		var wantDirs []string
		if controlPlane {
			want[w.up.Process.Pid] = "control plane"
			wantSockets[filepath.Join(w.runDir(), "control.sock")] = true
			wantSockets[filepath.Join(w.runDir(), "xds.sock")] = true
		}
		for i := range pods {
			p := &pods[i]
			want[p.ProxyPID], want[p.PIDs[0]] = p.Name+"'s proxy", p.Name
			dir := filepath.Join(w.runDir(), "pods", p.Namespace, p.Name)
			wantSockets[filepath.Join(dir, "pod.sock")] = true
			wantDirs = append(wantDirs, dir)
			if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", p.PIDs[0])); err == nil {
				wantNS[ns] = true
			}
		}
		agents := 0
		for _, p := range w.processes() {
			args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.Pid))
			switch {
			case want[p.Pid] != "":
				delete(want, p.Pid)
			case bytes.HasSuffix(args, []byte("\x00agent\x00")):
				agents++
			default:
				errs = append(errs, fmt.Errorf("process %d is left: %q", p.Pid, args))
			}
			_ = p.Release()
		}
		if agents != 0 && agents != len(pods) {
			errs = append(errs, fmt.Errorf("%d agents of %d pods", agents, len(pods)))
		}
		for pid, what := range want {
			errs = append(errs, fmt.Errorf("process %d is missing: %s", pid, what))
		}
		errs = append(errs, w.namespacesLeft(wantNS), w.socketsLeft(wantSockets))
		dirs, _ := filepath.Glob(filepath.Join(w.runDir(), "pods", "*", "*"))
		slices.Sort(dirs)
		slices.Sort(wantDirs)
		if !slices.Equal(dirs, wantDirs) {
			errs = append(errs, fmt.Errorf("directories %v, want %v", dirs, wantDirs))
		}
		if now := links(w.t); !slices.Equal(now, w.links) {
			errs = append(errs, fmt.Errorf("network interfaces %v, before %v", now, w.links))
		}
		return errors.Join(errs...)
	})
}

// namespacesLeft looks for processes in namespaces of pods that are gone.
func (w *world) namespacesLeft(want map[string]bool) error {
	var errs []error
	all, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, path := range all {
		if ns, err := os.Readlink(path); err == nil && w.namespaces[ns] != nil && !want[ns] {
			errs = append(errs, fmt.Errorf("%s is in the network namespace of a pod that is gone", filepath.Dir(path)))
		}
	}
	return errors.Join(errs...)
}

func (w *world) socketsLeft(want map[string]bool) error {
	var errs []error
	err := filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSocket != 0 && !want[path] {
			errs = append(errs, fmt.Errorf("socket %s is left", path))
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// links are the names of the machine's network interfaces.
func links(t *testing.T) []string {
	t.Helper()
	list, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range list {
		names = append(names, l.Name)
	}
	slices.Sort(names)
	return names
}

// mountsLeft is a mount of this mesh that the machine itself sees; "" is none.
func (w *world) mountsLeft() string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		w.t.Error(err)
	}
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, w.dir) {
			return line
		}
	}
	return ""
}
