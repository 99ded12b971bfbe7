package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
)

// Down stops the mesh of runDir and returns how many workloads it had. If the
// control plane is dead but programs still run, they are stopped all the same. A long
// wait is told to progress.
func Down(ctx context.Context, runDir string, progress io.Writer) (int, error) {
	client := NewClient(runDir)
	s, err := client.Status(ctx)
	if err == nil {
		if err := client.Down(ctx); err != nil {
			return 0, err
		}
		return s.Workloads, waitUnlocked(ctx, s.RunDir, progress)
	}
	if !errors.Is(err, ErrNotRunning) {
		return 0, err
	}
	return stopOrphans(ctx, runDir)
}

// waitUnlocked waits until the control plane of runDir, which has answered
// already, has ended, so that the next one can begin at once.
func waitUnlocked(ctx context.Context, runDir string, progress io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	long := time.NewTimer(time.Second)
	defer long.Stop()
	for runDirOwned(runDir) {
		select {
		case <-tick.C:
		case <-long.C:
			fmt.Fprintln(progress, "the programs are stopped; the control plane ends when the last samples are stored and sent to remote write")
		case <-ctx.Done():
			return fmt.Errorf("the programs are stopped, but the control plane in %s does not end: %w", runDir, ctx.Err())
		}
	}
	return nil
}

// endTimeout is how long a control plane may take to close its stores.
const endTimeout = 30 * time.Second

// stopOrphans takes over what a killed control plane left running, only to end
// it. ErrNotRunning is returned if there is nothing.
func stopOrphans(ctx context.Context, runDir string) (int, error) {
	if runDir == "" {
		runDir = DefaultRunDir()
	}
	state := readState(runDir)
	cfg := Config{RunDir: runDir, DataDir: state.DataDir}
	if err := cfg.Normalize(); err != nil {
		return 0, err
	}
	left, err := pod.Dirs(filepath.Join(cfg.RunDir, podsDir))
	switch {
	case err != nil:
		return 0, fmt.Errorf("look for running pods: %w", err)
	case len(left) == 0:
		return 0, fmt.Errorf("%w in %s, so there is nothing to stop: --run-dir names a mesh elsewhere", ErrNotRunning, cfg.RunDir)
	}
	lock, err := lockRunDir(cfg.RunDir)
	if err != nil {
		return 0, err
	}
	defer lock.release()
	for _, name := range []string{controlSocket, xdsSocket} {
		if err := removeSocket(filepath.Join(cfg.RunDir, name)); err != nil {
			return 0, err
		}
	}
	m, err := New(cfg, IO{})
	if err != nil {
		return 0, err
	}
	network, claim, err := chooseNet(ctx, cfg.RunDir, cfg.DataDir)
	if err != nil {
		return 0, err
	}
	defer claim.Close()
	m.net = network
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
