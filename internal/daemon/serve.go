package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vitrine-mesh/vitrine/internal/loopback"
)

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
		return errors.Join(err, m.store.Close())
	}
	g.Go(func() error { return m.plane.Run(gctx) })
	g.Go(func() error { return m.xds.Serve(gctx, l.xds) })
	g.Go(func() error { return m.store.Run(gctx) })
	g.Go(func() error { return m.local.Run(programs) })
	g.Go(func() error { return m.follow(gctx) })
	g.Go(func() error { return m.narrate(gctx) })
	g.Go(func() error { return loopback.Serve(gctx, l.prometheus, loopback.Guard(queries), loopback.Finish) })
	g.Go(func() error {
		return loopback.Serve(gctx, l.metrics, loopback.Guard(m.metricsHandler()), loopback.Finish)
	})
	g.Go(func() error { return loopback.Serve(gctx, l.control, m.controlHandler(), loopback.Finish) })
	if err := m.apply(m.objs, m.leftOut); err != nil {
		cancel()
		return errors.Join(err, ignoreCancelled(g.Wait()))
	}
	if m.cfg.Watch && len(m.cfg.Files) > 0 {
		g.Go(func() error {
			r := &reloading{mesh: m}
			return watchFiles(gctx, m.cfg.Files, m.filesVersion, m.io.Log, func() { r.reload(gctx) })
		})
	}
	g.Go(func() error {
		defer leave()
		// Whoever asks first: Ctrl-C, `vitrine down`, or a component that failed.
		select {
		case <-ctx.Done():
		case <-m.stop:
		case <-gctx.Done():
			if n := len(livePods(m.cfg.RunDir)); n > 0 {
				fmt.Fprintf(m.io.Progress, "the control plane ends and leaves %s running: %s takes over what runs, %s stops it\n",
					Count(n, "workload"), CommandLine(m.cfg.RunDir, "up"), CommandLine(m.cfg.RunDir, "down"))
			}
			return nil
		}
		close(m.stopping)
		if n := m.Status().Workloads; n > 0 { // the number that `vitrine down` tells, too
			fmt.Fprintf(m.io.Progress, "stopping %s (Ctrl-C again does not wait)\n", Count(n, "workload"))
		}
		m.stopErr = m.stopPrograms(base)
		m.store.EndSeries()
		close(m.stopped)
		cancel() // Serve lets the answer to `vitrine down` leave first
		return m.stopErr
	})
	over := make(chan struct{})
	var teller sync.WaitGroup
	teller.Go(func() { m.tellOfLastSamples(over) })
	err = g.Wait()
	close(over)
	teller.Wait()
	return ignoreCancelled(err)
}

// tellOfLastSamples says what an end waits for that takes its time: remote write
// tries an address that does not answer again and again, for 10 s and more.
func (m *Mesh) tellOfLastSamples(over <-chan struct{}) {
	if len(m.cfg.RemoteWrite) == 0 {
		return
	}
	select {
	case <-over:
		return
	case <-m.stopped:
	}
	wait := time.NewTimer(time.Second)
	defer wait.Stop()
	select {
	case <-over:
	case <-wait.C:
		fmt.Fprintf(m.io.Progress, "the last samples are on their way to %s, which is given up in a while if it does not answer\n",
			strings.Join(redacted(m.cfg.RemoteWrite), ", "))
	}
}

// redacted are URLs without their passwords.
func redacted(urls []string) []string {
	out := make([]string, 0, len(urls))
	for _, s := range urls {
		if u, err := url.Parse(s); err == nil {
			s = u.Redacted()
		}
		out = append(out, s)
	}
	return out
}

// stopPrograms ends all programs, each in its grace period; Force ends the
// waiting.
func (m *Mesh) stopPrograms(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var forced sync.WaitGroup
	defer forced.Wait()
	defer cancel()
	forced.Go(func() {
		select {
		case <-m.io.Force: // never, if it is nil
			cancel()
		case <-ctx.Done():
		}
	})
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
