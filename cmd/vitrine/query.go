package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
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
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Expr = args[0]
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
				return c.printChart(result)
			}
			return c.printVector(result)
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&q.Range, "range", 0, "show the last so much time instead of one instant")
	flags.DurationVar(&q.Step, "step", 0, "distance of points in a range (default: a 60th of it, at least 1s)")
	flags.StringVar(&at, "at", "", "time of the query: RFC 3339, unix seconds, or -5m for the past (default now)")
	flags.StringVar(&q.URL, "query-url", "", "ask this Prometheus-compatible server instead of the mesh's own")
	outputFlag(cmd, &output, "table", "json", "chart")
	return cmd
}

// parseTime understands RFC 3339, unix seconds, and negative durations.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return now, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d <= 0 {
		return now.Add(d), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		return time.UnixMilli(int64(f * 1000)), nil
	}
	return time.Time{}, fmt.Errorf("%q is not a time: want RFC 3339, unix seconds, or a negative duration as -5m", s)
}

func (c *cli) printVector(r *daemon.QueryResult) error {
	if len(r.Series) == 0 {
		fmt.Fprintln(c.errOut, "no data")
		return nil
	}
	names := labelNames(r.Series)
	rows := [][]string{append(slices.Clone(names), "VALUE")}
	for _, s := range r.Series {
		row := make([]string, 0, len(names)+1)
		for _, n := range names {
			row = append(row, s.Labels[n])
		}
		value := s.Text
		if len(s.Points) > 0 {
			value = formatValue(s.Points[len(s.Points)-1].Value)
		}
		rows = append(rows, append(row, value))
	}
	return table(c.out, rows)
}

// labelNames lists the labels that any series has, sorted.
func labelNames(series []daemon.QuerySeries) []string {
	var names []string
	for _, s := range series {
		for n := range s.Labels {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	slices.Sort(names)
	return names
}

func formatValue(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// printChart draws each series as one row of eighth blocks over its own scale.
func (c *cli) printChart(r *daemon.QueryResult) error {
	if len(r.Series) == 0 {
		fmt.Fprintln(c.errOut, "no data")
		return nil
	}
	for _, s := range r.Series {
		if len(s.Points) == 0 {
			continue
		}
		lo, hi := math.Inf(1), math.Inf(-1)
		for _, p := range s.Points {
			if !math.IsNaN(p.Value) {
				lo, hi = math.Min(lo, p.Value), math.Max(hi, p.Value)
			}
		}
		var names []string
		for n := range s.Labels {
			names = append(names, n)
		}
		slices.Sort(names)
		for i, n := range names {
			names[i] = fmt.Sprintf("%s=%q", n, s.Labels[n])
		}
		first, last := s.Points[0], s.Points[len(s.Points)-1]
		fmt.Fprintf(c.out, "{%s}\n", strings.Join(names, ", "))
		fmt.Fprintf(c.out, "  %s  min %s  max %s  last %s\n", sparkline(s.Points, lo, hi), formatValue(lo), formatValue(hi), formatValue(last.Value))
		fmt.Fprintf(c.out, "  %s to %s\n", first.Time.Format(time.TimeOnly), last.Time.Format(time.TimeOnly))
	}
	return nil
}

// sparkline draws points between lo and hi; a missing value is a space.
func sparkline(points []daemon.QueryPoint, lo, hi float64) string {
	const blocks = "▁▂▃▄▅▆▇█"
	levels := []rune(blocks)
	var b strings.Builder
	for _, p := range points {
		switch {
		case math.IsNaN(p.Value):
			b.WriteByte(' ')
		case hi == lo:
			b.WriteRune(levels[0])
		default:
			i := int((p.Value - lo) / (hi - lo) * float64(len(levels)))
			b.WriteRune(levels[min(i, len(levels)-1)])
		}
	}
	return b.String()
}

func (c *cli) graphCommand() *cobra.Command {
	var g daemon.GraphQuery
	var output, at string
	cmd := &cobra.Command{
		Use: "graph", Short: "Show who calls whom, how often, how fast and how well", Args: cobra.NoArgs,
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
	flags.DurationVar(&g.Window, "window", time.Minute, "span of time that the graph is about")
	flags.StringVar(&at, "at", "", "end of the window: RFC 3339, unix seconds, or -5m for the past (default now)")
	flags.StringVarP(&g.Namespace, "namespace", "n", "", "only edges from or to this namespace")
	flags.StringVar(&g.URL, "query-url", "", "ask this Prometheus-compatible server instead of the mesh's own")
	outputFlag(cmd, &output, "table", "json", "dot", "mermaid")
	return cmd
}
