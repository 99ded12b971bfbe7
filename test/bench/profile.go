package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// profiledFor is how long each kind of load lasts while the hop is profiled: of 100
// samples a second a sixth falls outside the kernel.
const profiledFor = 30 * time.Second

// profile writes a CPU profile of our hop under the loads of the comparison to path,
// for the compiler (go build -pgo).
func profile(ctx context.Context, dir, bin, path string) error {
	program, err := os.ReadFile(filepath.Join(bin, "hop"))
	if err != nil {
		return fmt.Errorf("our hop: %w", err)
	}
	copied := filepath.Join(dir, "hop") // a profile names the file that ran
	if err := os.WriteFile(copied, program, 0o700); err != nil {
		return fmt.Errorf("our hop: %w", err)
	}
	const addr = "127.0.0.1:29080"
	profiled := filepath.Join(dir, "cpu.pprof")
	hop, err := start(ctx, dir, "vitrine", addr, proxyCore, copied, "-listen", addr, "-origin", originAddr, "-cpuprofile", profiled)
	if err != nil {
		return err
	}
	for _, conns := range []int{64, 16} {
		if _, err = atMax(ctx, addr, conns, profiledFor); err != nil {
			break
		}
	}
	hop.stop() // it writes the profile
	if err != nil {
		return err
	}
	// A broken profile breaks every build, and with an empty one it has no effect.
	data, err := os.ReadFile(profiled)
	if err != nil || len(data) == 0 || !hop.cmd.ProcessState.Success() {
		return fmt.Errorf("our hop wrote no profile (%s): %w", hop.cmd.ProcessState, err)
	}
	return os.WriteFile(path, data, 0o644)
}
