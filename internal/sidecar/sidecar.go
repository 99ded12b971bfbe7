package sidecar

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
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/admin"
	"github.com/vitrine-mesh/vitrine/internal/intercept"
	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/loopback"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/proxy"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
	"github.com/vitrine-mesh/vitrine/internal/xds"
)

// Readiness tasks of the proxy.
const (
	taskCase   = "case"
	taskListen = "listeners"
	taskConfig = "configuration"
)

// lastGoodFile keeps the configuration for a start without a control plane.
const lastGoodFile = "config.last-good"

// drainIdleGrace is short, since the other proxies know before the drain begins.
const drainIdleGrace = 500 * time.Millisecond

// sidecar is one pod's process.
type sidecar struct {
	b         *pod.Bootstrap
	version   string
	started   time.Time
	level     *slog.LevelVar
	log       *slog.Logger
	accessLog io.Writer // may be nil
	runtime   *pod.Runtime
	readiness *admin.Readiness
	names     names
	endedBy   syscall.Signal // that came before the program; written by handleSignals, read after its end

	listed     atomic.Bool   // the configuration in force has this workload as an endpoint
	configured chan struct{} // closed when the first configuration is in force
	once       sync.Once
}

// serve runs the pod to its end. The error is nil if its programs ended, well or
// not, and otherwise says what of ours failed.
func (s *sidecar) serve(ctx context.Context) (err error) {
	s.readiness = admin.NewReadiness(taskCase, taskListen, taskConfig)
	s.configured = make(chan struct{})
	w := &s.b.Workload
	parts := newGroup(s.log)
	defer func() {
		if cause := parts.stop(); err == nil || errors.Is(err, errPartEnded) {
			err = cause
		}
	}()

	// 1. The status socket, so that the supervisor sees what is going on.
	status, err := pod.Listen(ctx, s.b.RunDir)
	if err != nil {
		return err
	}
	parts.start(ctx, "status socket", serveHTTP(status, s.runtime.Handler()))

	// 2. Telemetry comes before everything that is to be counted.
	recorder, err := telemetry.New(telemetry.Options{
		Self: *w, Version: s.version, Log: s.log, EvictAfter: evictAfter(s.b.EvictAfter),
		AccessLog: telemetry.AccessLogOptions{Writer: s.accessLog},
	})
	if err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	parts.start(ctx, "telemetry", recorder.Run)

	// 3. The case.
	s.runtime.Waiting("building the case")
	cfg := caseConfig(s.b)
	if len(cfg.Dirs) > 0 {
		cfg.VolumeDir = filepath.Join(s.b.StateDir, pod.VolumeDir)
		if err := os.MkdirAll(cfg.VolumeDir, 0o700); err != nil {
			return fmt.Errorf("make the directory of the volumes: %w", err)
		}
	}
	cfg.Log, cfg.DNSAnswered = s.log, recorder.DNSAnswered
	place, err := intercept.Start(ctx, cfg)
	if err != nil {
		return err
	}
	parts.start(ctx, "case", place.Run)
	s.readiness.Done(taskCase)

	// 4. The proxy and its configuration.
	px, err := proxy.New(proxy.Options{
		Self: *w, Net: s.b.Net, Recorder: recorder, DialProgram: podCase{place, s.b.Net}.dialProgram,
		CasePID: place.PID(), Log: s.log, DrainIdleGrace: drainIdleGrace,
	})
	if err != nil {
		return err
	}
	parts.start(ctx, "proxy", px.Run)
	client, err := xds.NewClient(xds.ClientOptions{
		Target: s.b.XDSSocket, NodeID: w.NodeID(),
		LastGood: filepath.Join(s.b.StateDir, lastGoodFile), Log: s.log,
	})
	if err != nil {
		return err
	}
	parts.start(ctx, "configuration", func(ctx context.Context) error {
		return client.Run(ctx, func(cfg *mesh.NodeConfig) error { return s.apply(px, recorder, cfg) }) //nolint:contextcheck // binding a listener does not wait
	})

	// 5. What the programs send.
	parts.start(ctx, "outbound connections", func(ctx context.Context) error { return px.ServeOutbound(ctx, outbound{place}) })
	parts.start(ctx, "dns", func(ctx context.Context) error { return place.ServeDNS(ctx, &s.names) })
	s.readiness.Done(taskListen)

	// 6. The admin, on the mesh IP.
	if err := s.startAdmin(ctx, parts, px, recorder, client); err != nil {
		return err
	}

	// 7. The programs, to their end.
	if err := s.runPrograms(ctx, parts, place, px, recorder); err != nil {
		return err
	}

	// 8. Everything that counts has to end before the last figures are taken;
	// the recorder and the status socket go last, with the deferred stop.
	parts.stopFrom("case")
	s.sendFinal(ctx, recorder)
	return nil
}

// evictAfter turns the bootstrap's value into telemetry's, where 0 is never.
func evictAfter(d time.Duration) time.Duration {
	switch {
	case d < 0:
		return 0
	case d == 0:
		return telemetry.DefaultEvictAfter
	}
	return d
}

// runPrograms waits for the first configuration and runs the programs until they
// have ended for good, or a part fails.
func (s *sidecar) runPrograms(ctx context.Context, parts *group, place *intercept.Case, px *proxy.Proxy, rec *telemetry.Recorder) error {
	s.runtime.Waiting("waiting for the first configuration from the control plane")
	select {
	case <-s.configured:
		s.runtime.Waiting("")
	case <-parts.failed:
		return errPartEnded
	case <-s.runtime.Stopping(): // the programs will not be started
	case <-ctx.Done():
		return nil
	}
	var drained atomic.Bool
	hooks := pod.Hooks{
		Ready: func(ready bool) { //nolint:contextcheck // binding a listener does not wait
			px.SetReady(ready)
			rec.SetReady(ready)
		},
		Drain: func(ctx context.Context) {
			s.readiness.Drain()
			s.awaitUnlisted(ctx)
			px.Quiesce(ctx)
			drained.Store(true)
		},
	}
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.runtime.Run(run, podCase{place, s.b.Net}, hooks)
	}()
	select {
	case <-ended:
		if drained.Load() { // what the programs said last is on its way
			ctx, cancel := context.WithTimeout(ctx, lastWords)
			defer cancel()
			if err := px.Drain(ctx); err != nil {
				s.log.WarnContext(ctx, "connections were cut off by the end of the pod", "error", err)
			}
		}
		return nil
	case <-parts.failed:
		cancel()
		<-ended
		return errPartEnded
	}
}

// lastWords bounds how long connections stay open when the programs have ended.
const lastWords = time.Second

// noticeTime bounds how long the ports stay open at the end of a pod for the
// other proxies to learn that it is no endpoint any more.
const noticeTime = time.Second

// awaitUnlisted waits until the control plane no longer lists this workload as
// an endpoint. This proxy learns it with all others, so what arrives until then
// was sent in good faith, and is still served.
func (s *sidecar) awaitUnlisted(ctx context.Context) {
	limit := time.NewTimer(noticeTime)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.listed.Load() {
		select {
		case <-tick.C:
		case <-limit.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// lists reports whether a workload is an endpoint of any cluster.
func lists(cfg *mesh.NodeConfig, workload string) bool {
	return slices.ContainsFunc(cfg.Endpoints, func(c mesh.ClusterEndpoints) bool {
		return slices.ContainsFunc(c.Endpoints, func(e mesh.Endpoint) bool { return e.Workload == workload })
	})
}

// apply puts a configuration into force.
func (s *sidecar) apply(px *proxy.Proxy, rec *telemetry.Recorder, cfg *mesh.NodeConfig) error {
	if err := px.Apply(cfg); err != nil {
		rec.ConfigRejected()
		return err
	}
	rec.ConfigApplied()
	s.names.set(cfg.Names)
	s.listed.Store(lists(cfg, s.b.Workload.Key()))
	s.once.Do(func() {
		close(s.configured)
		s.readiness.Done(taskConfig)
	})
	return nil
}

// startAdmin serves the admin, metrics and health ports.
func (s *sidecar) startAdmin(ctx context.Context, parts *group, px *proxy.Proxy, rec *telemetry.Recorder, client *xds.Client) error {
	view := &configView{px: px, client: client, rec: rec}
	srv, err := admin.New(admin.Options{
		Self: s.b.Workload, Version: s.version, Started: s.started,
		Metrics: view, Scrape: view.scrape(rec.Handler()), Readiness: s.readiness,
		Config: view, Clusters: view, Level: s.level,
		Quit: func() { s.runtime.Stop(true) },
		FailHealth: func(fail bool) {
			s.readiness.Fail(fail)
			s.runtime.FailHealth(fail)
		},
		Log: s.log,
	})
	if err != nil {
		return err
	}
	for _, p := range []struct {
		port    uint16
		handler http.Handler
	}{
		{mesh.PortAdmin, srv},
		{mesh.PortMerged, srv.AgentHandler()},
		{mesh.PortHealth, srv.HealthHandler()},
		{mesh.PortEnvoyStats, srv.StatsHandler()},
	} {
		addr := netip.AddrPortFrom(s.b.Workload.IP, p.port)
		var lc net.ListenConfig
		ln, err := lc.Listen(ctx, "tcp", addr.String())
		if err != nil {
			return fmt.Errorf("admin: %w (does a proxy of another mesh use network %d?)", err, s.b.Net)
		}
		parts.start(ctx, "admin "+addr.String(), serveHTTP(ln, p.handler))
	}
	return nil
}

// serveHTTP makes a part that serves handler on ln.
func serveHTTP(ln net.Listener, handler http.Handler) func(context.Context) error {
	return func(ctx context.Context) error { return loopback.Serve(ctx, ln, handler, loopback.Cancel) }
}
