package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
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
	n := len(left)
	err = m.local.Stop(ctx)
	cancel()
	return n, errors.Join(err, ignoreCancelled(g.Wait()))
}

// WaitReady waits until every workload of the mesh of runDir is ready or has
// ended, telling progress. It returns early when the mesh ends, whose error it
// then puts back into ended, or when ctx ends.
func WaitReady(ctx context.Context, runDir string, ended chan error, progress io.Writer) (Status, error) {
	watched := make(chan error, 1)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case err := <-ended:
			ended <- err
			watched <- err
		case <-stop:
		}
	}()
	s, err := waitSettled(ctx, NewClient(runDir), watched, os.DevNull, progress)
	close(stop)
	<-done
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("start: %w", err)
	}
	return s, nil
}
