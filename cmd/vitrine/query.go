package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
)

func (c *cli) queryCommand() *cobra.Command {
	var q daemon.Query
	var output, at string
	cmd := &cobra.Command{
		Use: "query PROMQL", Short: "Ask the mesh's metrics",
		Example: "  vitrine query 'sum(rate(istio_requests_total[1m])) by (destination_service)'\n" +
			"  vitrine query --range 1h 'sum(rate(istio_requests_total{reporter=\"destination\"}[1m]))'",
		Args: wantArgs(1, 1, "one expression in quotes, as in `vitrine query 'sum(rate(istio_requests_total[1m]))'`"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Expr = args[0]
			if q.Range < 0 || q.Step < 0 {
				return usageError{command: "query", err: errors.New("--range and --step are lengths of time: want them positive (--at says when the range ends)")}
			}
			if q.Step > 0 && q.Range == 0 {
				return usageError{command: "query", err: errors.New("--step is for a range: add --range, as in --range 1h")}
			}
			var err error
			if q.At, err = parseTime(at, time.Now()); err != nil {
				return usageError{command: "query", err: fmt.Errorf("--at: %w", err)}
			}
			result, err := daemon.RunQuery(cmd.Context(), c.runDir, q)
			if err != nil {
				return err
			}
			for _, w := range result.Warnings {
				fmt.Fprintf(c.errOut, "warning: %s\n", w)
			}
			switch {
			case output == "json":
				return writeJSON(c.out, result)
			case output == "chart", output == "table" && q.Range > 0:
				return printChart(c.out, c.errOut, result)
			}
			if len(result.Series) == 0 {
				fmt.Fprintln(c.errOut, "no data")
				return nil
			}
			if !isTerminal(c.out) {
				return printLines(c.out, result.Series)
			}
			return printVector(c.out, result.Series)
		},
	}
	flags := cmd.Flags()
	spanFlag(flags, &q.Range, "range", 0, "show the last so much time instead of one instant")
	spanFlag(flags, &q.Step, "step", 0, "distance of points in a range (default: a 60th of it, at least 1s)")
	flags.StringVar(&at, "at", "", "time of the query: RFC 3339, unix seconds, or -5m for the past (default now)")
	flags.StringVar(&q.URL, "query-url", "", "ask this Prometheus-compatible server instead of the mesh's own")
	outputFlag(cmd, &output, "table", "json", "chart")
	return cmd
}

// maxUnixSeconds bounds a time in seconds: the end of year 9999.
const maxUnixSeconds = 253402300800

// parseTime understands RFC 3339, unix seconds, and negative durations.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return now, nil
	}
	if d, err := parseSpan(s); err == nil && d <= 0 {
		return now.Add(d), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(f) < maxUnixSeconds {
		return time.UnixMilli(int64(f * 1000)), nil
	}
	return time.Time{}, fmt.Errorf("%q is not a time: want RFC 3339, unix seconds, or a negative duration as -5m", s)
}

func (c *cli) graphCommand() *cobra.Command {
	var g daemon.GraphQuery
	var output, at string
	cmd := &cobra.Command{
		Use: "graph", Short: "Show who calls whom, how often, how fast and how well", Args: noArgs,
		Long: "Show who calls whom, how often, how fast and how well.\n" +
			"ERRORS are requests with a response 5xx, with none or one that was cut off, and gRPC calls with a status other than OK.\n" +
			"HEALTH is degraded from 0.1 % of errors on, and failure from 20 %; a node's is the worse of what it gets and what it sends.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if g.At, err = parseTime(at, time.Now()); err != nil {
				return usageError{command: "graph", err: fmt.Errorf("--at: %w", err)}
			}
			if g.Window <= 0 {
				return usageError{command: "graph", err: fmt.Errorf("--window %s: want a positive duration", g.Window)}
			}
			return daemon.WriteGraph(cmd.Context(), c.runDir, g, output, c.out)
		},
	}
	flags := cmd.Flags()
	spanFlag(flags, &g.Window, "window", time.Minute, "span of time that the graph is about")
	flags.StringVar(&at, "at", "", "end of the window: RFC 3339, unix seconds, or -5m for the past (default now)")
	flags.StringVarP(&g.Namespace, "namespace", "n", "", "only edges from or to this namespace")
	flags.StringVar(&g.URL, "query-url", "", "ask this Prometheus-compatible server instead of the mesh's own")
	outputFlag(cmd, &output, "table", "json", "dot", "mermaid")
	return cmd
}
