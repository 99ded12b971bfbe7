package local_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vitrine-mesh/vitrine/internal/control"
	"github.com/vitrine-mesh/vitrine/internal/local"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/xds/ads"
)

// binaries are the real programs under test, readable by every user, and the
// network byte of their meshes, which run one after the other.
var binaries struct {
	dir, proxy, self string
	net              uint8
}

// claimNet finds a network byte that nobody uses, neither another mesh nor what a
// test that died has left, and keeps other runs of these tests from taking it
// until release, in the way of a mesh: by its address 1.
func claimNet() (n uint8, release func(), err error) {
	for n := uint8(100); n < 200; n++ {
		claim, err := net.Listen("tcp", netip.AddrPortFrom(mesh.IP(n, 1), mesh.PortAdmin).String())
		if err != nil {
			continue
		}
		if first, err := net.Listen("tcp", netip.AddrPortFrom(mesh.IP(n, 2), mesh.PortAdmin).String()); err == nil {
			first.Close()
			return n, func() { claim.Close() }, nil
		}
		claim.Close()
	}
	return 0, nil, errors.New("all networks are in use")
}

func TestMain(m *testing.M) {
	if os.Getenv(programEnv) != "" {
		os.Exit(runProgram(os.Args[1:])) //nolint:forbidigo // this is a main function, too
	}
	if dir := os.Getenv(supervisorEnv); dir != "" {
		os.Exit(superviseUntilKilled(dir)) //nolint:forbidigo // this is a main function, too
	}
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code) //nolint:forbidigo // this is a main function, too
}

// ordinaryStart gives the programs that tests start the surroundings that they
// expect, whatever started the tests: nohup and a script's background job leave
// SIGHUP or SIGINT ignored, which all that is started from there inherits unless
// somebody on the way handles them; a strict umask keeps other users out. Package
// meshtest has the same: imported here, it would link the embedded Prometheus.
func ordinaryStart() {
	syscall.Umask(0o022)
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig) // nobody listens: ignored as before
		}
	}
}

func buildAndRun(m *testing.M) (int, error) {
	ordinaryStart()
	binaries.dir = os.Getenv(binariesEnv)
	if binaries.dir == "" {
		dir, err := os.MkdirTemp("", "vt")
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil {
			return 0, err
		}
		binaries.dir = dir
		build := exec.Command("go", "build", "-o", filepath.Join(dir, "vitrine-proxy"), "../../cmd/vitrine-proxy")
		if out, err := build.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("build vitrine-proxy: %w\n%s", err, out)
		}
		self, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			return 0, err
		}
		if err := os.WriteFile(filepath.Join(dir, "program"), self, 0o755); err != nil {
			return 0, err
		}
	}
	binaries.proxy = filepath.Join(binaries.dir, "vitrine-proxy")
	binaries.self = filepath.Join(binaries.dir, "program")
	n, release, err := claimNet()
	if err != nil {
		return 0, err
	}
	defer release()
	binaries.net = n
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			return 1, err
		}
	}
	return code, nil
}

// world is a whole control plane: the real plane, the real ADS server, the
// supervisor under test, and the sockets that pods use.
type world struct {
	dir   string
	plane *control.Plane
	ads   *ads.Server
	sup   *local.Supervisor

	mu     sync.Mutex
	output []string          // "pod/container: line"
	gone   []string          // keys
	finals map[string]string // key to the last metrics

	unlisted chan struct{} // until it is closed, no end is taken for known; nil is closed
}

// open starts a control plane in dir. The returned function ends it, leaving the
// pods.
func open(dir string, log io.Writer) (w *world, closeWorld func(), err error) {
	w = &world{dir: dir, finals: map[string]string{}}
	logger := slog.New(slog.NewTextHandler(log, nil))
	if w.plane, err = control.New(control.Options{Net: binaries.net, StatePath: filepath.Join(dir, "state.json"), Log: logger}); err != nil {
		return nil, nil, err
	}
	w.ads, err = ads.NewServer(ads.ServerOptions{Log: logger, Config: func(node string) (*mesh.NodeConfig, error) {
		key, err := mesh.ParseNodeID(node)
		if err != nil {
			return nil, err
		}
		return w.plane.View(key)
	}})
	if err != nil {
		return nil, nil, err
	}
	w.sup, err = local.New(local.Options{
		RunDir: dir, DataDir: filepath.Join(dir, "data"), ProxyBinary: binaries.proxy, Net: binaries.net,
		XDSSocket: filepath.Join(dir, "xds.sock"), ControlSocket: filepath.Join(dir, "control.sock"),
		Index: w.plane.Index, Claim: w.plane.Claim, Release: w.plane.Release, Log: logger,
		Unlisted: w.awaitUnlisted, UnlistedTime: patience, // what a test asserts holds until then
		Hooks: local.Hooks{
			WorkloadChanged: w.plane.SetWorkload,
			WorkloadGone: func(key string) {
				w.plane.RemoveWorkload(key)
				w.mu.Lock()
				defer w.mu.Unlock()
				w.gone = append(w.gone, key)
			},
		},
		Output: func(pod, container string, line []byte) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.output = append(w.output, pod+"/"+container+": "+string(line))
		},
	})
	if err != nil {
		return nil, nil, err
	}
	xdsListener, err := listen(filepath.Join(dir, "xds.sock"))
	if err != nil {
		return nil, nil, err
	}
	controlListener, err := listen(filepath.Join(dir, "control.sock"))
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { w.plane.Run(ctx) })
	wg.Go(func() { w.ads.Serve(ctx, xdsListener) })
	wg.Go(func() {
		for range w.plane.Watch(ctx) {
			w.ads.Notify()
		}
	})
	api := &http.Server{Handler: http.HandlerFunc(w.final)}
	wg.Go(func() { api.Serve(controlListener) })
	failed := make(chan error, 1)
	wg.Go(func() { failed <- w.sup.Run(ctx) })
	return w, func() {
		cancel()
		api.Close()
		wg.Wait()
	}, nil
}

func listen(path string) (net.Listener, error) {
	os.Remove(path)
	return net.Listen("unix", path)
}

// awaitUnlisted waits until every connected proxy has answered for a snapshot in
// which the workload is not ready, as package daemon does, and for w.unlisted.
func (w *world) awaitUnlisted(ctx context.Context, key string) error {
	w.mu.Lock()
	unlisted := w.unlisted
	w.mu.Unlock()
	if unlisted != nil {
		select {
		case <-unlisted:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for s := range w.plane.Watch(ctx) {
		if slices.ContainsFunc(s.Workloads, func(l mesh.Workload) bool { return l.Key() == key && l.Ready }) {
			continue
		}
		w.ads.Notify() // who else watches may not have come to this snapshot yet
		return w.ads.Converged(ctx)
	}
	return ctx.Err()
}

func (w *world) final(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.URL.Path != "/v1/final" {
		rw.WriteHeader(http.StatusNotFound)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finals[r.FormValue("pod")] = string(body)
}

// newWorld is open for a test: the pods end with it.
func newWorld(t *testing.T) *world {
	t.Helper()
	w, _ := reopen(t, t.TempDir())
	return w
}

// reopen starts a control plane in the directory of another one.
func reopen(t *testing.T, dir string) (w *world, detach func()) {
	t.Helper()
	w, closeWorld, err := open(dir, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	t.Cleanup(func() {
		once.Do(func() {
			if t.Failed() {
				w.showLogs(t)
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := w.sup.Stop(ctx); err != nil {
				t.Errorf("stop: %v", err)
			}
			closeWorld()
		})
	})
	return w, func() { once.Do(closeWorld) }
}

func (w *world) showLogs(t *testing.T) {
	t.Helper()
	logs, _ := filepath.Glob(filepath.Join(w.dir, "data", "logs", "*", "*", "*.log"))
	for _, path := range logs {
		data, _ := os.ReadFile(path)
		t.Logf("%s:\n%s", path, data)
	}
}

// apply declares the wanted sets.
func (w *world) apply(t *testing.T, sets ...mesh.WorkloadSet) {
	t.Helper()
	if err := w.sup.Apply(sets); err != nil {
		t.Fatal(err)
	}
}

// deployment is a set whose one container runs a program of runProgram; one that
// serves is ready when it listens.
func deployment(name string, replicas int, args ...string) mesh.WorkloadSet {
	c := container("app", args...)
	if len(args) == 2 && args[1] == "8080" {
		c.Readiness = &mesh.Probe{TCP: &mesh.TCPProbe{Port: 8080}, Period: 20 * time.Millisecond, Timeout: 5 * time.Second}
	}
	return mesh.WorkloadSet{
		Kind: mesh.KindDeployment, Namespace: "default", Name: name, Replicas: replicas,
		Labels: map[string]string{"app": name}, ServiceAccount: "default",
		Restart: mesh.RestartAlways, GracePeriod: 5 * time.Second,
		Containers: []mesh.Container{c},
	}
}

func container(name string, args ...string) mesh.Container {
	return mesh.Container{
		Name: name, Args: append([]string{binaries.self}, args...),
		Env:   []mesh.EnvVar{{Name: programEnv, Value: "1"}, {Name: "POD_IP", FieldPath: "status.podIP"}},
		Ports: []mesh.ContainerPort{{Port: 8080, Protocol: mesh.ProtocolHTTP}},
	}
}

// patience is how long a test waits for what must come. It only ends a hang: on a
// busy machine everything takes its time.
const patience = time.Minute

// eventually waits until ok returns nil, and fails with its last error.
func eventually(t *testing.T, ok func() error) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("after %s: %v", patience, err)
		case <-tick.C:
		}
	}
}

// settled waits until the supervisor has nothing more to do.
func (w *world) settled(t *testing.T) []local.PodStatus {
	t.Helper()
	eventually(t, w.unsettled)
	return w.sup.Pods()
}

// unsettled is an error while the supervisor has something to do.
func (w *world) unsettled() error {
	if !w.sup.State().Settled {
		return fmt.Errorf("not settled: %s", w.describe())
	}
	return nil
}

func (w *world) describe() string {
	var b strings.Builder
	for _, p := range w.sup.Pods() {
		fmt.Fprintf(&b, "%s %s %q %q ready=%v stopping=%v; ", p.Workload.Name, p.Status.Phase, p.Status.Reason, p.Status.Message, p.Workload.Ready, p.Stopping)
	}
	return b.String()
}

// get asks a pod's program, through its proxy.
func get(p *local.PodStatus, path string) (string, error) {
	return fetch(netip.AddrPortFrom(p.Workload.IP, mesh.PortWireBase), path)
}

func fetch(addr netip.AddrPort, path string) (string, error) {
	c := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + addr.String() + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(body), err
}
