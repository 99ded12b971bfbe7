// Command bench measures one proxy hop of Vitrine beside haproxy, nginx, real
// Envoy and net/http's ReverseProxy, in one interleaved run: every proxy is up
// the whole time on one core, bursts of load take turns, and what counts is the
// ratio of medians over the rounds. Ours runs with all telemetry on, the peers
// with none. A last row that only copies bytes tells what no proxy in user space
// can get below.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"
)

// settings are the driver's flags.
type settings struct {
	bin    string
	rounds int
	burst  time.Duration
	json   string
	idle   float64
	// profile is the file for a CPU profile of our hop; then nothing is compared.
	profile string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "load" {
		if err := loadMain(os.Args[2:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(1)
		}
		return
	}
	var s settings
	flag.StringVar(&s.bin, "bin", "bin/bench", "directory of the built programs")
	flag.IntVar(&s.rounds, "rounds", 8, "rounds; each proxy has each kind of load once a round")
	flag.DurationVar(&s.burst, "burst", 2*time.Second, "length of one burst of load")
	flag.StringVar(&s.json, "json", "bin/bench.json", "file for the figures as JSON")
	flag.Float64Var(&s.idle, "sidecar-mib", 0, "measured memory of an idle vitrine-proxy, to be reported with the rest; 0 is not measured")
	flag.StringVar(&s.profile, "profile", "", "compare nothing, and write a CPU profile of our hop to this file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := withOrigin(ctx, func(dir string) error {
		if s.profile != "" {
			return profile(ctx, dir, s.bin, s.profile)
		}
		return compare(ctx, dir, s, os.Stdout, os.Stderr)
	})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// withOrigin calls do with a work directory while the origin serves.
func withOrigin(ctx context.Context, do func(dir string) error) error {
	dir, err := os.MkdirTemp("", "vitrine-bench-")
	if err != nil {
		return fmt.Errorf("make work directory: %w", err)
	}
	defer os.RemoveAll(dir)
	origin, err := startOrigin(ctx, dir)
	if err != nil {
		return err
	}
	defer origin.stop()
	return do(dir)
}

// compare measures every proxy.
func compare(ctx context.Context, dir string, s settings, out, progress io.Writer) error {
	proxies, err := startProxies(ctx, s.bin, dir)
	if err != nil {
		return err
	}
	defer func() {
		for _, p := range proxies {
			p.stop()
		}
	}()
	res := newResults(s, proxies)
	if err := res.idleMemory(ctx); err != nil {
		return err
	}
	for round := range s.rounds {
		fmt.Fprintf(progress, "round %d of %d\n", round+1, s.rounds)
		if err := res.round(ctx, round); err != nil {
			return err
		}
	}
	fmt.Fprintln(progress, "memory, system calls and allocations")
	if err := res.once(ctx); err != nil {
		return err
	}
	report := res.report()
	if report.TelemetryNanos, err = telemetryNanos(); err != nil {
		return err
	}
	report.TelemetryShare = report.TelemetryNanos / 1000 / report.Rows[0].CPUMicrosC64
	report.SidecarIdleMiB = s.idle
	if err := report.write(out); err != nil {
		return err
	}
	data, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return fmt.Errorf("encode figures: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(s.json), 0o755); err != nil {
		return fmt.Errorf("make directory of figures: %w", err)
	}
	return os.WriteFile(s.json, append(data, '\n'), 0o644)
}
