package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
)

// demoDir finds the demo's files: beside the source tree that the executable
// was built in (bin/vitrine, demo/), or installed beside it (share/vitrine/demo).
func demoDir() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find vitrine: %w", err)
	}
	base := filepath.Dir(filepath.Dir(self))
	for _, dir := range []string{filepath.Join(base, "demo"), filepath.Join(base, "share", "vitrine", "demo")} {
		if _, err := os.Stat(filepath.Join(dir, demoFile)); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("the demo's files are not beside this executable: run `make demo` in the source tree, or name their directory with --dir")
}

// demoFile is the YAML of the demo, which `vitrine up -f` takes as well.
const demoFile = "shop.yaml"

func (c *cli) demoCommand() *cobra.Command {
	cfg := daemon.Config{Version: version}
	var dir string
	var duration time.Duration
	cmd := &cobra.Command{
		Use: "demo", Short: "Run a shop of small programs, with load, to try Vitrine on", Args: noArgs,
		Long: "Run a shop of small programs in Go, Node and Python, none of which knows about Vitrine, with its own load.\n" +
			"It is plain YAML: `vitrine up -f demo/" + demoFile + "` does the same. Ctrl-C leaves nothing behind.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				var err error
				if dir, err = demoDir(); err != nil {
					return err
				}
			}
			cfg.RunDir = c.runDir
			cfg.Files = []string{filepath.Join(dir, demoFile)}
			return c.demo(cmd.Context(), cfg, duration)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory of the demo's files (default: found beside the executable)")
	spanFlag(cmd.Flags(), &duration, "duration", 0, "end after so long with a summary, for example 60s")
	c.meshFlags(cmd.Flags(), &cfg)
	return cmd
}

// demo runs the shop and talks the user through it.
func (c *cli) demo(ctx context.Context, cfg daemon.Config, duration time.Duration) error {
	outliveReaders()
	// The shop's own output would drown what is said here: `vitrine logs` has it.
	ledger := new(ledgerReader)
	m, err := c.newMesh(cfg, daemon.IO{Output: ledger, Progress: c.out, Demo: true})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	err = c.demoStory(ctx, m, ledger, &cfg, duration, ended)
	cancel()
	return errors.Join(err, <-ended)
}

// demoStory waits for the shop, says what to try, and after duration prints the
// summary. If the mesh ends meanwhile, it puts its error back into ended.
func (c *cli) demoStory(ctx context.Context, m *daemon.Mesh, ledger *ledgerReader, cfg *daemon.Config, duration time.Duration, ended chan error) error {
	began := time.Now()
	fmt.Fprintln(c.out, "starting the shop")
	// over waits for one of the usual ends, or until time has come.
	over := func(until <-chan time.Time, done <-chan struct{}) bool {
		select {
		case <-ctx.Done():
		case err := <-ended:
			ended <- err
		case <-until:
			return false
		case <-done:
			return false
		}
		return true
	}
	if over(nil, m.Settled()) {
		return nil
	}
	s := m.Status()
	fmt.Fprintf(c.out, "ready after %.1f s\n", time.Since(began).Seconds())
	c.printDemo(&s)
	if duration <= 0 {
		fmt.Fprintln(c.out, "Ctrl-C stops everything.")
		over(nil, nil)
		return nil
	}
	fmt.Fprintf(c.out, "It ends by itself after %s; Ctrl-C ends it now.\n", duration)
	timer := time.NewTimer(duration)
	defer timer.Stop()
	if over(timer.C, nil) {
		return nil
	}
	// What happened just now is in no figure before every proxy was scraped again.
	timer.Reset(cfg.ScrapeInterval)
	if over(timer.C, nil) {
		return nil
	}
	duration += cfg.ScrapeInterval
	fmt.Fprintf(c.out, "\nWhat happened in the last %s:\n\n", duration.Round(time.Second))
	err := daemon.WriteGraph(ctx, c.runDir, daemon.GraphQuery{Window: max(duration, time.Second), At: time.Now()}, "table", c.out)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	fmt.Fprintln(c.out, "\nThe load stops. Its own ledger of requests, beside what the proxies at both ends counted:")
	audit := loadAudit{client: c.client(), ledger: ledger, leftOut: s.LeftOut, settle: 2*cfg.ScrapeInterval + 5*time.Second, scrape: cfg.ScrapeInterval}
	audit.count = func(ctx context.Context) ([]daemon.QuerySeries, error) {
		window := strconv.Itoa(int(time.Since(s.Started).Seconds())+60) + "s"
		r, err := daemon.RunQuery(ctx, c.runDir, daemon.Query{
			URL: s.Prometheus, Expr: "increase(istio_requests_total[" + window + "] anchored)", At: time.Now(),
		})
		if err != nil {
			return nil, err
		}
		return r.Series, nil
	}
	return audit.run(ctx, c.out)
}

// printDemo says what to open and to try, each line as it can be typed.
func (c *cli) printDemo(s *daemon.Status) {
	vitrine := os.Args[0]
	if c.runDir != "" {
		vitrine += " --run-dir " + c.runDir
	}
	shop, ledger := "", ""
	for _, o := range s.Published {
		switch o.Service {
		case "web-app.default":
			shop = o.URL
		case "load.default":
			ledger = o.URL + "/ledger"
		}
	}
	fmt.Fprintf(c.out, `
open   %[2]s/
         the shop
       %[3]s/targets
         Prometheus: what is scraped; PromQL below /api/v1
       %[4]s
         what the load sent, to compare with what was counted
try    %[1]s graph
         who calls whom, how often, how fast; catalog-v2 is a canary with a fault: one of its pages fails
       %[1]s ps -o wide
         the programs and their proxies
       %[1]s query 'sum by (destination_app, response_code) (rate(istio_requests_total{reporter="destination"}[1m]))'
       %[1]s logs -f web-app
       curl -X POST '%[2]s/switch?slow=on'
         makes one version of the catalog slow: look at the graph again
       curl -X POST '%[2]s/switch?fail=on'
         makes payments fail (slow=off and fail=off mend it)

`, vitrine, shop, s.Prometheus, ledger)
}
