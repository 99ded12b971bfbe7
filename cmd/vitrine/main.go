// Command vitrine is the control plane, the stores and the command line of a
// Vitrine mesh. It parses arguments, calls package daemon, prints and exits.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
)

// version is set by the build.
var version = "dev"

// cli is what every subcommand shares.
type cli struct {
	stdin       *os.File
	out, errOut io.Writer
	runDir      string
	logLevel    string
	force       <-chan struct{} // closed by the second Ctrl-C
}

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	// A signal that the caller had ignored (nohup, a script's background job)
	// stays so, also for the program that `vitrine run` becomes.
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	force := make(chan struct{})
	go func() {
		sig, _ := (<-signals).(syscall.Signal)
		cancel(signalled(sig))
		// A terminal that is closed sends SIGHUP, and its shell does, too.
		for <-signals == syscall.SIGHUP {
			continue
		}
		close(force)
	}()
	c := &cli{stdin: os.Stdin, out: os.Stdout, errOut: os.Stderr, force: force}
	os.Exit(c.run(ctx, os.Args[1:]))
}

// signalled is why a command did not come to its end: a signal of the user's.
type signalled syscall.Signal

func (signalled) Error() string { return "interrupted" }

// Is makes it a cancellation also where the cause of one is told, as by net/http.
func (signalled) Is(target error) bool { return target == context.Canceled }

// run executes one command line and returns the exit status: 0 success,
// 1 failure, 2 wrong usage, 128+n if signal n ended it before it was done.
func (c *cli) run(ctx context.Context, args []string) int {
	root, errOut := c.rootCommand(), c.errOut //nolint:contextcheck // commands get theirs when they are executed
	root.SetArgs(args)
	root.SetOut(c.out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	var usage usageError
	var config *daemon.ConfigError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		command := strings.TrimSpace("vitrine " + usage.command)
		fmt.Fprintf(errOut, "vitrine: %v\nSee `%s --help`.\n", err, command)
		return 2
	case errors.As(err, &config):
		for _, reason := range config.Reasons {
			fmt.Fprintf(errOut, "vitrine: %v\n", reason)
		}
		return 2
	}
	fmt.Fprintf(errOut, "vitrine: %v\n", err)
	if sig, ok := errors.AsType[signalled](context.Cause(ctx)); ok && errors.Is(err, context.Canceled) {
		return 128 + int(sig)
	}
	return 1
}

// usageError is a command line that cannot be understood.
type usageError struct {
	command string
	err     error
}

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func (c *cli) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "vitrine",
		Short: "See every service, touch none",
		Long: "Vitrine puts every program of a system into a glass case and shows its traffic:\n" +
			"Istio's metrics, PromQL and a live service graph, with no change to any program.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version,
	}
	root.SetVersionTemplate("vitrine {{.Version}}\n")
	flags := root.PersistentFlags()
	flags.StringVar(&c.runDir, "run-dir", "", "directory of the mesh's sockets (default "+daemon.DefaultRunDir()+")")
	flags.StringVar(&c.logLevel, "log-level", "warn", "debug, info, warn or error: what Vitrine itself logs to stderr")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{command: cmd.Name(), err: err}
	})
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		_, err := c.logger() // also of commands that log nothing
		return err
	}
	root.AddCommand(
		c.upCommand(), c.runCommand(), c.demoCommand(), c.downCommand(),
		c.psCommand(), c.logsCommand(), c.restartCommand(),
		c.queryCommand(), c.graphCommand(),
		c.doctorCommand(), c.versionCommand(),
	)
	wrapArgErrors(root)
	root.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		err := fmt.Errorf("unknown command %q", args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(near, " or "))
		}
		return usageError{err: err}
	}
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	root.SuggestionsMinimumDistance = 2
	return root
}

// wrapArgErrors makes a wrong number of arguments a usage error everywhere.
func wrapArgErrors(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		if check := sub.Args; check != nil {
			sub.Args = func(cmd *cobra.Command, args []string) error {
				if err := check(cmd, args); err != nil {
					return usageError{command: cmd.Name(), err: err}
				}
				return nil
			}
		}
	}
}

// logger writes Vitrine's own log to stderr.
func (c *cli) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.logLevel)); err != nil {
		return nil, usageError{err: fmt.Errorf("--log-level %q: want debug, info, warn or error", c.logLevel)}
	}
	return slog.New(slog.NewTextHandler(c.errOut, &slog.HandlerOptions{Level: level})), nil
}

func (c *cli) client() *daemon.Client { return daemon.NewClient(c.runDir) }

func (c *cli) versionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			info := map[string]string{"client": version}
			if s, err := c.client().Status(cmd.Context()); err == nil {
				info["control plane"] = s.Version
			}
			if output == "json" {
				return writeJSON(c.out, map[string]string{"client": info["client"], "controlPlane": info["control plane"]})
			}
			fmt.Fprintf(c.out, "client version: %s\n", info["client"])
			if v, ok := info["control plane"]; ok {
				fmt.Fprintf(c.out, "control plane version: %s\n", v)
			}
			return nil
		},
	}
	outputFlag(cmd, &output, "text", "json")
	return cmd
}
