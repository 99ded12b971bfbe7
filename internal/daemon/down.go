package daemon

import (
	"context"
	"errors"
	"path/filepath"

	"golang.org/x/sync/errgroup"
)

// Down stops the mesh of runDir and returns how many workloads it had. If the
// control plane is dead but programs still run, they are stopped all the same.
func Down(ctx context.Context, runDir string) (int, error) {
	client := NewClient(runDir)
	s, err := client.Status(ctx)
	if err == nil {
		return s.Workloads, client.Down(ctx)
	}
	if !errors.Is(err, ErrNotRunning) {
		return 0, err
	}
	return stopOrphans(ctx, runDir, err)
}

// stopOrphans takes over what a killed control plane left running, only to end
// it. notRunning is returned if there is nothing.
func stopOrphans(ctx context.Context, runDir string, notRunning error) (int, error) {
	if runDir == "" {
		runDir = DefaultRunDir()
	}
	state := readState(runDir)
	cfg := Config{RunDir: runDir, DataDir: state.DataDir}
	if err := cfg.Normalize(); err != nil {
		return 0, err
	}
	left, err := filepath.Glob(filepath.Join(cfg.RunDir, "pods", "*", "*"))
	if err != nil || len(left) == 0 {
		return 0, notRunning
	}
	lock, err := lockRunDir(cfg.RunDir)
	if err != nil {
		return 0, err
	}
	defer lock.Close()
	for _, name := range []string{controlSocket, xdsSocket} {
		if err := removeSocket(filepath.Join(cfg.RunDir, name)); err != nil {
			return 0, err
		}
	}
	m, err := New(cfg, IO{})
	if err != nil {
		return 0, err
	}
	if m.net, err = chooseNet(cfg.RunDir, cfg.DataDir); err != nil {
		return 0, err
	}
	if err := m.buildSources(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.plane.Run(gctx) })
	g.Go(func() error { return m.local.Run(gctx) })
	n := len(livePods(cfg.RunDir))
	err = m.local.Stop(ctx)
	cancel()
	return n, errors.Join(err, ignoreCancelled(g.Wait()))
}
