package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
)

// addressFlags say where a mesh is on the machine.
func addressFlags(flags *pflag.FlagSet, cfg *daemon.Config) {
	flags.StringVar(&cfg.DataDir, "data-dir", "", "directory of metrics, logs and addresses (default "+daemon.DefaultDataDir()+")")
	flags.StringVar(&cfg.PrometheusAddr, "prometheus-addr", "", "where the Prometheus API listens (default "+daemon.DefaultPrometheusAddr+")")
	flags.StringVar(&cfg.ControlAddr, "control-addr", "", "where the control plane's own metrics listen (default "+daemon.DefaultControlAddr+")")
}

// meshFlags are the flags of every command that may start a control plane.
func (c *cli) meshFlags(flags *pflag.FlagSet, cfg *daemon.Config) {
	addressFlags(flags, cfg)
	flags.StringVar(&cfg.ProxyBinary, "proxy-binary", "", "the vitrine-proxy to use (default: beside vitrine, then PATH)")
	lengthFlag(flags, &cfg.ScrapeInterval, "scrape-interval", 5*time.Second, "how often every proxy is scraped")
	lengthFlag(flags, &cfg.RetentionTime, "retention-time", 15*24*time.Hour, "how long metrics are kept")
	sizeFlag(flags, &cfg.RetentionBytes, "retention-bytes", 2<<30, "how much of metrics is kept, as 512MB or 2GiB; -1 is no bound")
	lengthFlag(flags, &cfg.EvictAfter, "evict-after", 15*time.Minute, "when a proxy forgets a silent series; negative is never")
	flags.StringArrayVar(&cfg.RemoteWrite, "remote-write", nil, "URL that receives every sample (repeatable)")
	flags.StringArrayVar(&cfg.RuleFiles, "rules", nil, "Prometheus rule file (repeatable)")
	flags.StringVar(&cfg.QueryURL, "query-url", "", "external Prometheus-compatible server that answers queries instead of the embedded one")
}

func (c *cli) upCommand() *cobra.Command {
	cfg := daemon.Config{Version: version}
	var detach, inBackground bool
	cmd := &cobra.Command{
		Use: "up -f FILE|DIR...", Short: "Run the programs of Kubernetes YAML as a mesh on this machine",
		Long: "Run the programs of Kubernetes YAML as a mesh on this machine, without containers.\n" +
			"A Deployment whose container has a command runs as local processes, one per replica, each in its own\n" +
			"glass case. Ctrl-C stops everything. If the control plane was killed, `vitrine up` takes over what still runs.",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg.Files = append(cfg.Files, args...)
			cfg.RunDir = c.runDir
			switch {
			case detach:
				return c.detach(cmd.Context(), cfg)
			case inBackground:
				return c.upInBackground(cmd.Context(), cfg)
			}
			return c.up(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringArrayVarP(&cfg.Files, "filename", "f", nil, "file or directory of YAML; - is stdin (repeatable)")
	cmd.Flags().BoolVarP(&cfg.Watch, "watch", "w", false, "apply changes of the files; a bad edit keeps what runs")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "go to the background once everything is ready")
	cmd.Flags().BoolVar(&inBackground, "in-background", false, "write to vitrine.log in the data directory; what --detach starts")
	_ = cmd.Flags().MarkHidden("in-background") // it exists
	c.meshFlags(cmd.Flags(), &cfg)
	return cmd
}

// outliveReaders makes a write to standard output or error fail when its reader is
// gone, where the runtime would end the process and leave its programs running
// (os/signal, SIGPIPE): Ctrl-C ends the tee of `vitrine up | tee log` too. Ignoring
// the signal would be inherited.
func outliveReaders() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// up runs the control plane in the foreground until ctx ends.
func (c *cli) up(ctx context.Context, cfg daemon.Config) error {
	outliveReaders()
	m, err := c.newMesh(cfg, daemon.IO{Stdin: c.stdin, Output: c.out, Progress: c.errOut})
	if err != nil {
		return err
	}
	return m.Run(ctx)
}

// upInBackground is up for nobody to watch: everything goes to a log.
func (c *cli) upInBackground(ctx context.Context, cfg daemon.Config) error {
	log, err := daemon.OpenLog(cfg.DataDir, version)
	if err != nil {
		return err
	}
	c.out, c.errOut = log, log
	// The error is told on standard error, which leads to the log too.
	return errors.Join(c.up(ctx, cfg), log.Close())
}

// readStdin reads standard input if files name it.
func (c *cli) readStdin(files []string) ([]byte, error) {
	if !slices.Contains(files, "-") {
		return nil, nil
	}
	data, err := io.ReadAll(c.stdin)
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	return data, nil
}

// newMesh validates the configuration and loads the files, and says what is wrong
// with them; nothing is started.
func (c *cli) newMesh(cfg daemon.Config, streams daemon.IO) (*daemon.Mesh, error) {
	var err error
	if streams.Log, err = c.logger(); err != nil {
		return nil, err
	}
	streams.Force = c.force
	m, err := daemon.New(cfg, streams)
	if err != nil {
		if bad, ok := errors.AsType[*daemon.ManifestError](err); ok {
			for _, line := range bad.Lines {
				fmt.Fprintln(c.errOut, line)
			}
			err = fmt.Errorf("%w; nothing was started", err)
		}
		return nil, err
	}
	return m, nil
}

// detach starts the same command in the background and waits until it settles.
func (c *cli) detach(ctx context.Context, cfg daemon.Config) error {
	// Mistakes in the files are told here, not in a log file.
	stdin, err := c.readStdin(cfg.Files)
	if err != nil {
		return err
	}
	if _, err := c.newMesh(cfg, daemon.IO{Stdin: bytes.NewReader(stdin), Output: c.out, Progress: c.errOut}); err != nil {
		return err
	}
	s, err := daemon.StartDetached(ctx, cfg, c.logLevel, stdin, c.errOut)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "the mesh is up: %s, %s\n", daemon.Count(s.Workloads, "workload"), daemon.Count(s.Services, "service"))
	for _, o := range s.Published {
		fmt.Fprintf(c.out, "  %s  %s\n", o.URL, o.Service)
	}
	fmt.Fprintf(c.out, "  %s  Prometheus: targets, PromQL, /api/v1\n", s.Prometheus)
	fmt.Fprintf(c.out, "%s stops it\n", daemon.CommandLine(c.runDir, "down"))
	return nil
}
