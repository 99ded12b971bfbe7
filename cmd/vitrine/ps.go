package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
)

func (c *cli) psCommand() *cobra.Command {
	var output, namespace string
	cmd := &cobra.Command{
		Use: "ps [POD | WORKLOAD | NAMESPACE/NAME]...", Aliases: []string{"pods"}, Short: "List the workloads of the mesh",
		RunE: func(cmd *cobra.Command, args []string) error {
			pods, err := c.client().Pods(cmd.Context())
			if err != nil {
				return err
			}
			kept, missing := chosen(pods, namespace, qualified(pods, namespace, args))
			if err := c.listPods(kept, output); err != nil {
				return err
			}
			if len(missing) == 0 {
				return c.tellNotMade(cmd.Context(), namespace, args, output)
			}
			return fmt.Errorf("nothing is called %q: %s lists what runs", strings.Join(missing, ", "), daemon.CommandLine(c.runDir, "ps"))
		},
		ValidArgsFunction: c.completePods,
	}
	namespaceFlag(cmd, &namespace)
	cmd.Flags().BoolP("all-namespaces", "A", false, "all namespaces, which is the default")
	outputFlag(cmd, &output, "table", "wide", "json", "name")
	return cmd
}

func namespaceFlag(cmd *cobra.Command, namespace *string) {
	cmd.Flags().StringVarP(namespace, "namespace", "n", "", "only this namespace (default all)")
}

func (c *cli) listPods(pods []daemon.Pod, output string) error {
	switch output {
	case "json":
		return writeJSON(c.out, pods)
	case "name":
		for _, p := range pods {
			fmt.Fprintf(c.out, "%s/%s\n", p.Namespace, p.Name)
		}
		return nil
	}
	return c.printPods(pods, output == "wide")
}

func (c *cli) printPods(pods []daemon.Pod, wide bool) error {
	if len(pods) == 0 {
		fmt.Fprintln(c.errOut, "no workloads")
		return nil
	}
	header := []string{"NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP"}
	if wide {
		header = append(header, "PORTS", "PROXY", "PROXY-PID", "PIDS")
	}
	rows := [][]string{header}
	for _, p := range pods {
		ready := 0
		for _, container := range p.Containers {
			if container.Ready {
				ready++
			}
		}
		row := []string{
			p.Namespace, p.Name, fmt.Sprintf("%d/%d", ready, len(p.Containers)), p.Status,
			strconv.Itoa(p.Restarts), age(time.Since(p.Started)), p.IP,
		}
		if wide {
			row = append(row, strings.Trim(fmt.Sprint(p.Ports), "[]"), proxyState(p.Proxy), strconv.Itoa(p.ProxyPID), strings.Trim(fmt.Sprint(p.PIDs), "[]"))
		}
		rows = append(rows, row)
	}
	return table(c.out, rows)
}

// tellNotMade says below a table of all pods, or those of a namespace, which are not
// in it since they cannot be made.
func (c *cli) tellNotMade(ctx context.Context, namespace string, args []string, output string) error {
	if len(args) > 0 || output != "table" && output != "wide" {
		return nil
	}
	s, err := c.client().Status(ctx)
	if err != nil {
		return err
	}
	for i := range s.NotMade {
		if set := &s.NotMade[i]; namespace == "" || set.Namespace == namespace {
			fmt.Fprintln(c.errOut, set)
		}
	}
	return nil
}

// proxyState uses the words of `istioctl proxy-status`.
func proxyState(s daemon.ProxyState) string {
	switch {
	case s.Rejected != "":
		return "REJECTED"
	case !s.Connected:
		return "NOT CONNECTED"
	case !s.Synced:
		return "STALE"
	}
	return "SYNCED"
}

func (c *cli) logsCommand() *cobra.Command {
	var r daemon.LogRequest
	cmd := &cobra.Command{
		Use: "logs [flags] [POD | WORKLOAD | NAMESPACE/NAME]...", Short: "Print what the programs wrote",
		Long: "Print what the programs of the named pods or workloads wrote to stdout and stderr; of all if none is named.",
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if r.Targets, err = c.targets(cmd.Context(), r.Namespace, args); err != nil {
				return err
			}
			return c.client().Logs(cmd.Context(), c.out, r)
		},
		ValidArgsFunction: c.completePods,
	}
	namespaceFlag(cmd, &r.Namespace)
	cmd.Flags().BoolVarP(&r.Follow, "follow", "f", false, "go on printing until interrupted")
	cmd.Flags().IntVar(&r.Tail, "tail", -1, "only the last N lines of each program")
	cmd.Flags().StringVarP(&r.Container, "container", "c", "", "only this container; istio-proxy is the log of the workload's proxy")
	return cmd
}

func (c *cli) restartCommand() *cobra.Command {
	var namespace string
	cmd := &cobra.Command{
		Use: "restart POD | WORKLOAD | NAMESPACE/NAME...", Short: "Replace workloads, one after the other",
		Args: wantArgs(1, 0, "the pods or workloads to replace, as in `vitrine restart web`"),
		RunE: func(cmd *cobra.Command, args []string) error {
			wanted, err := c.targets(cmd.Context(), namespace, args)
			if err != nil {
				return err
			}
			names, err := c.client().Restart(cmd.Context(), wanted)
			for _, name := range names {
				fmt.Fprintf(c.out, "%s is being replaced\n", name)
			}
			return err
		},
		ValidArgsFunction: c.completePods,
	}
	namespaceFlag(cmd, &namespace)
	return cmd
}

func (c *cli) completePods(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	pods, err := c.client().Pods(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, p := range pods {
		names = append(names, p.Name, p.Owner)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (c *cli) downCommand() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Stop every program and the mesh", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := daemon.Down(cmd.Context(), c.runDir, c.errOut)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.out, "stopped %s\n", daemon.Count(n, "workload"))
			return nil
		},
	}
}

func (c *cli) doctorCommand() *cobra.Command {
	var output string
	var cfg daemon.Config
	cmd := &cobra.Command{
		Use: "doctor", Short: "Try everything that Vitrine needs of this machine", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.RunDir = c.runDir
			checks := daemon.Doctor(cmd.Context(), cfg)
			failed := 0
			for _, check := range checks {
				if !check.OK {
					failed++
				}
			}
			if output == "json" {
				if err := writeJSON(c.out, checks); err != nil {
					return err
				}
			} else {
				c.printChecks(checks)
			}
			if failed > 0 {
				return fmt.Errorf("%d of %d checks failed", failed, len(checks))
			}
			return nil
		},
	}
	outputFlag(cmd, &output, "text", "json")
	addressFlags(cmd.Flags(), &cfg)
	return cmd
}

func (c *cli) printChecks(checks []daemon.Check) {
	for _, check := range checks {
		mark := "ok  "
		if !check.OK {
			mark = "FAIL"
		}
		fmt.Fprintf(c.out, "%s  %s", mark, check.Name)
		if check.Detail != "" {
			fmt.Fprintf(c.out, ": %s", check.Detail)
		}
		fmt.Fprintln(c.out)
		if !check.OK && check.Remedy != "" {
			fmt.Fprintf(c.out, "      %s\n", check.Remedy)
		}
	}
}
