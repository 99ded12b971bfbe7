package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
)

func (c *cli) demoCommand() *cobra.Command {
	cfg := daemon.Config{Version: version}
	var dir string
	var duration time.Duration
	cmd := &cobra.Command{
		Use: "demo", Short: "Run a shop of small programs, with load, to try Vitrine on", Args: cobra.NoArgs,
		Long: "Run a shop of small programs in Go, Node and Python, none of which knows about Vitrine, with its own load.\n" +
			"It is plain YAML: `vitrine up -f demo/" + daemon.DemoFile + "` does the same. Ctrl-C leaves nothing behind.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				var err error
				if dir, err = daemon.DemoDir(); err != nil {
					return err
				}
			}
			cfg.RunDir = c.runDir
			cfg.Files = []string{filepath.Join(dir, daemon.DemoFile)}
			return c.demo(cmd.Context(), cfg, duration)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory of the demo's files (default: found beside the executable)")
	cmd.Flags().DurationVar(&duration, "duration", 0, "end after so long with a summary, for example 60s")
	c.meshFlags(cmd.Flags(), &cfg)
	return cmd
}

// demo runs the shop and talks the user through it.
func (c *cli) demo(ctx context.Context, cfg daemon.Config, duration time.Duration) error {
	log, err := c.logger()
	if err != nil {
		return err
	}
	// The shop's own output would drown what is said here: `vitrine logs` has it.
	m, err := daemon.New(cfg, daemon.IO{Progress: c.out, Log: log, Missing: true})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	err = c.demoStory(ctx, duration, ended)
	cancel()
	if end := <-ended; err == nil {
		err = end
	}
	return err
}

// demoStory waits for the shop, says what to try, and after duration prints the
// summary. It puts the end of the mesh back into ended if it sees it.
func (c *cli) demoStory(ctx context.Context, duration time.Duration, ended chan error) error {
	began := time.Now()
	s, err := daemon.WaitReady(ctx, c.runDir, ended, c.out)
	if err != nil || ctx.Err() != nil {
		return err
	}
	fmt.Fprintf(c.out, "ready after %.1f s\n", time.Since(began).Seconds())
	fmt.Fprintf(c.out, demoText, s.Prometheus, s.Prometheus)
	if duration <= 0 {
		fmt.Fprintln(c.out, "Ctrl-C stops everything.")
		select {
		case <-ctx.Done():
		case err := <-ended:
			ended <- err
		}
		return nil
	}
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		ended <- err
		return nil
	case <-timer.C:
	}
	fmt.Fprintf(c.out, "\nWhat happened in the last %s:\n\n", duration.Round(time.Second))
	return daemon.WriteGraph(ctx, c.runDir, daemon.GraphQuery{Window: duration, At: time.Now()}, "table", c.out)
}

const demoText = `
open   http://127.0.0.1:8080/     the shop
       %s      metrics, targets (/targets), PromQL (/api/v1)
try    bin/vitrine graph                 who calls whom, how often, how fast
       bin/vitrine ps -o wide            the programs and their proxies
       bin/vitrine query 'sum(rate(istio_requests_total{reporter="destination"}[1m])) by (destination_service, response_code)'
       bin/vitrine logs -f web
       curl '127.0.0.1:8080/switch?slow=on'     make a part of the shop slow, then look at the graph again
       curl '127.0.0.1:8080/switch?fail=on'     make payments fail (slow=off, fail=off to mend)
data   %s/api/v1/query?query=istio_requests_total

`
