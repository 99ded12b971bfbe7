package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/control"
	"github.com/vitrine-mesh/vitrine/internal/local"
	"github.com/vitrine-mesh/vitrine/internal/manifest"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/metricstore"
	"github.com/vitrine-mesh/vitrine/internal/xds/ads"
)

// IO is how a Mesh speaks with whoever started it.
type IO struct {
	Stdin    io.Reader // what the file name "-" reads
	Output   io.Writer // lines of the programs, each prefixed by its pod
	Progress io.Writer // what happens, for a person; written to by one goroutine at a time
	Log      *slog.Logger
	// Force ends the programs at once, without their grace periods, when it is
	// closed while the mesh stops. It may be nil.
	Force <-chan struct{}
	// Demo leaves out workload sets whose interpreter is not installed, and
	// says so, instead of refusing the files; and what to open and to try is
	// the caller's to say.
	Demo bool
}

// oneAtATime is a writer for several goroutines.
type oneAtATime struct {
	mu sync.Mutex
	w  io.Writer // guarded by mu
}

func (o *oneAtATime) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.w.Write(p)
}

// ManifestError is a set of files that cannot be used.
type ManifestError struct {
	Lines []string // one "file:line: kind/name: what; what to do" each, warnings included
	Count int      // errors among them
}

func (e *ManifestError) Error() string {
	if e.Count == 1 {
		return "1 error in the files"
	}
	return fmt.Sprintf("%d errors in the files", e.Count)
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
	stopped  chan struct{} // closed after that when every workload has ended, or will not
	stopErr  error         // why not all of them have; read-only once stopped is closed
	once     sync.Once

	// Set by Run before anything is served, read-only afterwards.
	net      uint8
	plane    *control.Plane
	local    *local.Supervisor
	store    *metricstore.Store
	xds      *ads.Server
	promAddr string
	ctrlAddr string

	announced announced

	filesVersion string // before New read them; watching goes on from it

	mu   sync.Mutex // guards the rest
	objs *manifest.Objects
	// leftOut are the sets of the files that Demo left out of objs.
	leftOut []string
	runs    map[string]mesh.Service // of programs added by `vitrine run`, by pod key
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
	stdio.Progress = &oneAtATime{w: stdio.Progress}
	if stdio.Log == nil {
		stdio.Log = slog.New(slog.DiscardHandler)
	}
	m := &Mesh{
		cfg: cfg, io: stdio, started: time.Now(),
		settled: make(chan struct{}), stop: make(chan struct{}), stopping: make(chan struct{}), stopped: make(chan struct{}),
		runs: map[string]mesh.Service{}, objs: &manifest.Objects{},
	}
	if cfg.Watch && slices.Contains(cfg.Files, "-") {
		return nil, &ConfigError{Reasons: []error{errors.New("--watch cannot follow standard input: write it to a file and give that to -f")}}
	}
	if len(cfg.Files) > 0 {
		m.filesVersion = filesVersion(cfg.Files) // what changes from now on is read again
		var warnings []string
		var err error
		if m.objs, m.leftOut, warnings, err = m.load(); err != nil {
			return nil, err
		}
		m.tell(warnings)
	}
	return m, nil
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
	defer lock.release()
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
		fmt.Fprintf(m.io.Progress, "taking over %s that an earlier control plane left running\n", Count(len(live), "workload"))
	}
	if err := m.buildSources(); err != nil {
		return err
	}
	if err := m.buildStores(); err != nil {
		return err
	}
	listeners, err := m.listen(ctx)
	if err != nil {
		return errors.Join(err, m.store.Close())
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

// localOptions connects the supervisor to the control plane.
func (m *Mesh) localOptions() local.Options {
	return local.Options{
		RunDir: m.cfg.RunDir, DataDir: m.cfg.DataDir, ProxyBinary: m.cfg.ProxyBinary, Net: m.net,
		XDSSocket: m.path(xdsSocket), ControlSocket: m.path(controlSocket),
		EvictAfter: m.cfg.EvictAfter,
		Unlisted:   m.awaitUnlisted,
		Index:      m.plane.Index, Claim: m.plane.Claim, Release: m.plane.Release,
		Hooks: local.Hooks{
			WorkloadChanged: func(w mesh.Workload) { m.plane.SetWorkload(w) },
			WorkloadGone: func(key string) {
				m.plane.RemoveWorkload(key)
				m.unregister(key)
			},
		},
		Output: printer(m.io.Output), Log: m.io.Log.With("component", "local"),
	}
}

// buildStores makes what serves proxies and queries.
func (m *Mesh) buildStores() error {
	var err error
	m.xds, err = ads.NewServer(ads.ServerOptions{Config: m.nodeConfig, Version: m.cfg.Version, Log: m.io.Log.With("component", "xds")})
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

func (m *Mesh) path(name string) string { return filepath.Join(m.cfg.RunDir, name) }
