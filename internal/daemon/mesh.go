package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vitrine-mesh/vitrine/internal/control"
	"github.com/vitrine-mesh/vitrine/internal/local"
	"github.com/vitrine-mesh/vitrine/internal/loopback"
	"github.com/vitrine-mesh/vitrine/internal/manifest"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/metricstore"
	"github.com/vitrine-mesh/vitrine/internal/xds/ads"
)

// IO is how a Mesh speaks with whoever started it.
type IO struct {
	Stdin    io.Reader // what the file name "-" reads
	Output   io.Writer // lines of the programs, each prefixed by its pod
	Progress io.Writer // what happens, for a person
	Log      *slog.Logger
	// Force ends the programs at once, without their grace periods, when it is
	// closed while the mesh stops. It may be nil.
	Force <-chan struct{}
	// Demo leaves out workload sets whose interpreter is not installed, and
	// says so, instead of refusing the files; and what to open and to try is
	// the caller's to say.
	Demo bool
}

// ManifestError is a set of files that cannot be used.
type ManifestError struct {
	Lines []string // one "file:line: kind/name: what; what to do" each, warnings included
	Count int      // errors among them
}

func (e *ManifestError) Error() string {
	return fmt.Sprintf("%d errors in the files; nothing was started", e.Count)
}

// Mesh is one control plane: its sources, stores and servers. Make it with New
// and call Run once.
type Mesh struct {
	cfg      Config
	io       IO
	started  time.Time
	settled  chan struct{} // closed when everything runs for the first time
	stop     chan struct{} // closed by the first `vitrine down`
	stopping chan struct{} // closed when the programs are about to be ended
	stopped  chan struct{} // closed when every workload has ended after that
	once     sync.Once

	// Set by Run before anything is served, read-only afterwards.
	net      uint8
	plane    *control.Plane
	local    *local.Supervisor
	store    *metricstore.Store
	xds      *ads.Server
	promAddr string
	ctrlAddr string

	announced atomic.Uint64 // version of the last snapshot that proxies were told of

	mu   sync.Mutex // guards the rest
	objs *manifest.Objects
	// leftOut are the sets of the files that Demo left out of objs.
	leftOut []string
	runs    map[string]registration // programs added by `vitrine run`, by pod key
	coming  []*mesh.Service         // of programs that are being added
}

// New validates cfg and reads the files. It starts nothing. A *ManifestError
// lists what is wrong with the files.
func New(cfg Config, stdio IO) (*Mesh, error) {
	if err := cfg.Normalize(); err != nil {
		return nil, err
	}
	if stdio.Output == nil {
		stdio.Output = io.Discard
	}
	if stdio.Progress == nil {
		stdio.Progress = io.Discard
	}
	if stdio.Log == nil {
		stdio.Log = slog.New(slog.DiscardHandler)
	}
	m := &Mesh{
		cfg: cfg, io: stdio, started: time.Now(),
		settled: make(chan struct{}), stop: make(chan struct{}), stopping: make(chan struct{}), stopped: make(chan struct{}),
		runs: map[string]registration{}, objs: &manifest.Objects{},
	}
	if cfg.Watch && slices.Contains(cfg.Files, "-") {
		return nil, &ConfigError{Reasons: []error{errors.New("--watch cannot follow standard input: write it to a file and give that to -f")}}
	}
	if len(cfg.Files) > 0 {
		var err error
		if m.objs, m.leftOut, err = m.load(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// load reads the files and tells their warnings, and which sets are left out of
// the objects.
func (m *Mesh) load() (objs *manifest.Objects, leftOut []string, err error) {
	objs, diags := manifest.Load(m.cfg.Files, manifest.Options{Stdin: m.io.Stdin, CheckPrograms: !m.io.Demo})
	bad := &ManifestError{}
	for _, d := range diags {
		bad.Lines = append(bad.Lines, d.String())
		if !d.Warning {
			bad.Count++
		}
	}
	if bad.Count > 0 {
		return nil, nil, bad
	}
	for _, line := range bad.Lines {
		fmt.Fprintln(m.io.Progress, line)
	}
	if m.io.Demo {
		if leftOut, err = m.leaveOut(objs); err != nil {
			return nil, nil, err
		}
	}
	return objs, leftOut, nil
}

// Settled is closed when everything that was wanted at the start runs.
func (m *Mesh) Settled() <-chan struct{} { return m.settled }

// Run serves the mesh until ctx ends or `vitrine down` is called, and stops all
// programs before it returns. If it is killed, programs and proxies go on and
// the next Run in the same run directory takes them over.
func (m *Mesh) Run(ctx context.Context) error {
	lock, err := lockRunDir(m.cfg.RunDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	n, claim, err := chooseNet(ctx, m.cfg.RunDir, m.cfg.DataDir)
	if err != nil {
		return err
	}
	defer claim.Close()
	m.net = n
	if err := os.MkdirAll(m.cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w (choose another with --data-dir)", err)
	}
	live := livePods(m.cfg.RunDir)
	m.readopt(live)
	if err := checkPublished(ctx, m.objs.Services, inherited(m.objs.Services, live)); err != nil {
		return err
	}
	if len(live) > 0 {
		fmt.Fprintf(m.io.Progress, "taking over %d workloads that an earlier control plane left running\n", len(live))
	}
	if err := m.buildSources(); err != nil {
		return err
	}
	if err := m.buildStores(); err != nil {
		return err
	}
	listeners, err := m.listen(ctx)
	if err != nil {
		return err
	}
	return m.serve(ctx, listeners)
}

// buildSources makes the control plane and the supervisor; neither runs yet.
func (m *Mesh) buildSources() error {
	var err error
	m.plane, err = control.New(control.Options{
		Net: m.net, StatePath: filepath.Join(m.cfg.DataDir, "addresses.json"), Version: m.cfg.Version,
		DisableIPv6: !ipv6Works(), Log: m.io.Log.With("component", "control"),
	})
	if err != nil {
		return err
	}
	m.local, err = local.New(m.localOptions())
	return err
}

// buildStores makes what serves proxies and queries.
func (m *Mesh) buildStores() error {
	var err error
	m.xds, err = ads.NewServer(ads.ServerOptions{Config: m.nodeConfig, Log: m.io.Log.With("component", "xds")})
	if err != nil {
		return err
	}
	remote := make([]metricstore.RemoteWriteConfig, 0, len(m.cfg.RemoteWrite))
	for _, url := range m.cfg.RemoteWrite {
		remote = append(remote, metricstore.RemoteWriteConfig{URL: url})
	}
	m.store, err = metricstore.Open(metricstore.Options{
		Dir: filepath.Join(m.cfg.DataDir, "metrics"), ScrapeInterval: m.cfg.ScrapeInterval,
		RetentionTime: m.cfg.RetentionTime, RetentionBytes: max(m.cfg.RetentionBytes, 0),
		RuleFiles: m.cfg.RuleFiles, RemoteWrite: remote, ExternalURL: "http://" + m.cfg.PrometheusAddr,
		Version: m.cfg.Version, Log: m.io.Log.With("component", "metricstore"),
	})
	if err != nil {
		return fmt.Errorf("open the metric store: %w (a second mesh needs a --data-dir of its own)", err)
	}
	return nil
}

// nodeConfig answers a proxy's request for its configuration.
func (m *Mesh) nodeConfig(nodeID string) (*mesh.NodeConfig, error) {
	key, err := mesh.ParseNodeID(nodeID)
	if err != nil {
		return nil, err
	}
	return m.plane.View(key)
}

// listeners are the sockets of a control plane.
type listeners struct {
	control, xds, prometheus, metrics net.Listener
}

// listen opens every socket before anything starts, so that a port in use is
// an error of the start.
func (m *Mesh) listen(ctx context.Context) (l listeners, err error) {
	var lc net.ListenConfig
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for _, s := range []struct {
		to   *net.Listener
		name string
	}{{&l.control, controlSocket}, {&l.xds, xdsSocket}} {
		path := filepath.Join(m.cfg.RunDir, s.name)
		if err := removeSocket(path); err != nil {
			return l, err
		}
		if *s.to, err = lc.Listen(ctx, "unix", path); err != nil {
			return l, fmt.Errorf("open %s: %w", path, err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			return l, fmt.Errorf("close %s to others: %w", path, err)
		}
	}
	if l.prometheus, err = lc.Listen(ctx, "tcp", m.cfg.PrometheusAddr); err != nil {
		return l, fmt.Errorf("open the Prometheus API: %w (does another Prometheus or another mesh run? choose another address with --prometheus-addr, 127.0.0.1:0 for any free port)", err)
	}
	if l.metrics, err = lc.Listen(ctx, "tcp", m.cfg.ControlAddr); err != nil {
		return l, fmt.Errorf("open the control plane's metrics: %w (does another mesh run? choose another address with --control-addr, 127.0.0.1:0 for any free port)", err)
	}
	m.promAddr, m.ctrlAddr = l.prometheus.Addr().String(), l.metrics.Addr().String()
	return l, nil
}

func (l *listeners) close() {
	for _, ln := range []net.Listener{l.control, l.xds, l.prometheus, l.metrics} {
		if ln != nil {
			ln.Close()
		}
	}
}

// serve runs all components. They end in this order: programs first, while
// proxies can still be reached and scraped; then servers and stores.
func (m *Mesh) serve(ctx context.Context, l listeners) error {
	defer l.close()
	// Components live until the programs have stopped, not until ctx ends.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	g, gctx := errgroup.WithContext(base)
	// Programs can be stopped although another component has failed meanwhile.
	programs, leave := context.WithCancel(base)
	defer leave()
	queries, err := m.queryHandler()
	if err != nil {
		return err
	}
	g.Go(func() error { return m.plane.Run(gctx) })
	g.Go(func() error { return m.xds.Serve(gctx, l.xds) })
	g.Go(func() error { return m.store.Run(gctx) })
	g.Go(func() error { return m.local.Run(programs) })
	g.Go(func() error { return m.follow(gctx) })
	g.Go(func() error { return m.narrate(gctx) })
	g.Go(func() error { return serveHTTP(gctx, l.prometheus, loopback.Guard(queries)) })
	g.Go(func() error { return serveHTTP(gctx, l.metrics, loopback.Guard(m.metricsHandler())) })
	g.Go(func() error { return serveHTTP(gctx, l.control, m.controlHandler()) })
	if err := m.apply(m.objs, m.leftOut); err != nil {
		cancel()
		return errors.Join(err, ignoreCancelled(g.Wait()))
	}
	if m.cfg.Watch && len(m.cfg.Files) > 0 {
		g.Go(func() error { return watchFiles(gctx, m.cfg.Files, m.io.Log, m.reload) })
	}
	g.Go(func() error {
		defer leave()
		// Whoever asks first: Ctrl-C, `vitrine down`, or a component that failed.
		select {
		case <-ctx.Done():
		case <-m.stop:
		case <-gctx.Done():
			if n := len(livePods(m.cfg.RunDir)); n > 0 {
				fmt.Fprintf(m.io.Progress, "the control plane ends, but %d workloads go on: `vitrine up` takes them over, `vitrine down` stops them\n", n)
			}
			return nil
		}
		close(m.stopping)
		if n := len(m.local.Pods()); n > 0 {
			fmt.Fprintf(m.io.Progress, "stopping %d workloads (Ctrl-C again does not wait for them)\n", n)
		}
		err := m.stopPrograms(base)
		close(m.stopped)
		cancel() // serveHTTP lets the answer to `vitrine down` leave first
		return err
	})
	return ignoreCancelled(g.Wait())
}

// stopPrograms ends all programs, each in its grace period; Force ends the
// waiting.
func (m *Mesh) stopPrograms(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-m.io.Force: // never, if it is nil
			cancel()
		case <-ctx.Done():
		}
	}()
	err := m.local.Stop(ctx)
	if err != nil && ctx.Err() != nil {
		fmt.Fprintln(m.io.Progress, "killed what did not end by itself")
		return nil
	}
	return err
}

func ignoreCancelled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// serveHTTP serves h until ctx ends, then lets running requests finish.
func serveHTTP(ctx context.Context, ln net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		_ = server.Close() // it has no more to say
	}
	<-done //nolint:errcheck // http.ErrServerClosed
	return nil
}

// apply hands loaded objects on in place of those before. If anything about
// them is refused, nothing has changed.
func (m *Mesh) apply(objs *manifest.Objects, leftOut []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.local.Apply(objs.Sets); err != nil {
		return fmt.Errorf("apply the files: %w", err)
	}
	m.objs, m.leftOut = objs, leftOut
	m.plane.SetServices("files", objs.Services)
	m.plane.SetServices("run", m.runServices())
	return nil
}

// reload reads the files again; if anything is wrong, what runs stays.
func (m *Mesh) reload() {
	objs, leftOut, err := m.load()
	if bad, ok := errors.AsType[*ManifestError](err); ok {
		fmt.Fprintln(m.io.Progress, strings.Join(bad.Lines, "\n"))
	}
	if err == nil {
		mine := map[netip.AddrPort]bool{}
		m.mu.Lock()
		for _, p := range publishedBy(m.objs.Services) {
			mine[p.address] = true
		}
		m.mu.Unlock()
		err = checkPublished(context.Background(), objs.Services, mine)
	}
	if err == nil {
		err = m.apply(objs, leftOut)
	}
	if err != nil {
		fmt.Fprintf(m.io.Progress, "the change was not applied: %v\n", err)
		return
	}
	fmt.Fprintln(m.io.Progress, "applied the change")
}

// follow keeps the scraped targets and the proxies in step with the snapshot.
func (m *Mesh) follow(ctx context.Context) error {
	m.store.SetTargets("vitrine", []metricstore.Target{{
		Address: m.ctrlAddr, Path: "/metrics", Labels: map[string]string{"app": "istiod", "pod": "vitrine", "namespace": "istio-system"},
	}})
	for s := range m.plane.Watch(ctx) {
		m.xds.Notify()
		m.announced.Store(s.Version)
		m.store.SetTargets(proxyJob, m.targets(s))
	}
	return nil
}

// awaitUnlisted waits until every connected proxy has answered for a snapshot in
// which the workload is not ready.
func (m *Mesh) awaitUnlisted(ctx context.Context, key string) error {
	var version uint64
	for s := range m.plane.Watch(ctx) {
		i := slices.IndexFunc(s.Workloads, func(w mesh.Workload) bool { return w.Key() == key })
		if i < 0 || !s.Workloads[i].Ready {
			version = s.Version
			break
		}
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for version == 0 || m.announced.Load() < version {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until %s is announced as not ready: %w", key, ctx.Err())
		}
	}
	return m.xds.Converged(ctx)
}

// proxyJob is the scrape job of proxies, named as in Istio's addon.
const proxyJob = "kubernetes-pods"

func (m *Mesh) path(name string) string { return filepath.Join(m.cfg.RunDir, name) }

// targets are the metrics ports of all proxies that run.
func (m *Mesh) targets(s *mesh.Snapshot) []metricstore.Target {
	out := make([]metricstore.Target, 0, len(s.Workloads))
	for i := range s.Workloads {
		out = append(out, proxyTarget(&s.Workloads[i]))
	}
	return out
}

// proxyTarget labels a proxy as Istio's addon Prometheus does: the pod's labels
// with their names made valid, namespace and pod.
func proxyTarget(w *mesh.Workload) metricstore.Target {
	labels := make(map[string]string, len(w.Labels)+3)
	for k, v := range w.Labels {
		labels[labelName(k)] = v
	}
	maps.Copy(labels, map[string]string{"namespace": w.Namespace, "pod": w.Name, "node": "localhost"})
	return metricstore.Target{
		Address: net.JoinHostPort(w.IP.String(), strconv.Itoa(mesh.PortMerged)), Path: "/stats/prometheus", Labels: labels,
	}
}

// labelName makes a Kubernetes label's name a Prometheus one, as labelmap does.
func labelName(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, s)
}
