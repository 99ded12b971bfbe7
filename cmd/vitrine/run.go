package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func (c *cli) runCommand() *cobra.Command {
	cfg := daemon.Config{Version: version}
	var req daemon.RunRequest
	var ports, publish, labels []string
	cmd := &cobra.Command{
		Use: "run --service NAME [flags] -- COMMAND [ARG...]", Short: "Add one program to the running mesh, or start one",
		Long: "Run one program in a glass case as part of the mesh. Its stdin, stdout, terminal, signals, exit code, working\n" +
			"directory, user and environment stay its own. If no mesh runs, one is started in the background, with those of\n" +
			"the flags that are about the mesh; for a mesh that runs they have no effect.",
		Example: "  vitrine run --service web --version v1 --port 8080/http --publish 127.0.0.1:8080:8080 -- ./web",
		Args:    wantArgs(1, 0, "the program after --, as in `vitrine run --service web -- ./web`"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Args = args
			if err := parseRun(&req, ports, publish, labels); err != nil {
				return usageError{command: "run", err: err}
			}
			cfg.RunDir = c.runDir
			return c.runProgram(cmd.Context(), cfg, req)
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.StringVar(&req.Service, "service", "", "service name (required)")
	flags.StringVar(&req.Version, "version", "", "version label")
	flags.StringVarP(&req.Namespace, "namespace", "n", "default", "namespace")
	flags.StringArrayVarP(&ports, "port", "p", nil, "port the program listens on, PORT[/PROTOCOL] as 8080 or 8080/http (repeatable)")
	flags.StringArrayVar(&publish, "publish", nil, "open a port on this machine, [IP:]HOSTPORT:PORT (repeatable)")
	flags.StringArrayVarP(&labels, "label", "l", nil, "further label KEY=VALUE (repeatable)")
	c.meshFlags(flags, &cfg)
	return cmd
}

// runProgram registers the program and becomes its proxy, so that the shell
// sees one process whose exit code and signals are the program's.
func (c *cli) runProgram(ctx context.Context, cfg daemon.Config, req daemon.RunRequest) error {
	var err error
	if req.Dir, err = os.Getwd(); err != nil {
		return fmt.Errorf("find the working directory: %w", err)
	}
	client := c.client()
	if _, err := client.Status(ctx); errors.Is(err, daemon.ErrNotRunning) {
		started, err := daemon.StartOrJoin(ctx, cfg, c.logLevel, c.errOut)
		if err != nil {
			return err
		}
		if started {
			fmt.Fprintf(c.errOut, "vitrine: started a mesh in the background; %s stops it\n", daemon.CommandLine(c.runDir, "down"))
		}
	} else if err != nil {
		return err
	}
	resp, err := client.Run(ctx, req)
	if err != nil {
		return err
	}
	command, err := resp.Command(&cfg)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("start %s: %w", req.Args[0], err) // a signal after Exec finds the program's proxy
	}
	if err := syscall.Exec(command[0], command, os.Environ()); err != nil {
		return fmt.Errorf("start %s: %w", command[0], err)
	}
	return nil
}

func parseRun(req *daemon.RunRequest, ports, publish, labels []string) error {
	if req.Service == "" {
		return errors.New("--service is required: the name under which other programs reach this one")
	}
	for _, s := range ports {
		number, protocol, _ := strings.Cut(s, "/")
		port, err := parsePort(number)
		if err != nil {
			return fmt.Errorf("--port %q: want PORT or PORT/PROTOCOL: %w", s, err)
		}
		if protocol != "" && mesh.ProtocolFromPort(protocol, "", "", 0) == mesh.ProtocolAuto {
			return fmt.Errorf("--port %q: unknown protocol %q: want http, http2, grpc, tcp, tls or a database's name", s, protocol)
		}
		req.Ports = append(req.Ports, daemon.RunPort{Port: port, Protocol: protocol})
	}
	for _, s := range publish {
		p, err := parsePublish(s)
		if err != nil {
			return fmt.Errorf("--publish %q: want [IP:]HOSTPORT:PORT: %w", s, err)
		}
		req.Publish = append(req.Publish, p)
	}
	for _, s := range labels {
		key, value, ok := strings.Cut(s, "=")
		if !ok || key == "" {
			return fmt.Errorf("--label %q: want KEY=VALUE", s)
		}
		if req.Labels == nil {
			req.Labels = map[string]string{}
		}
		req.Labels[key] = value
	}
	return req.Validate()
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a port number (1 to 65535)", s)
	}
	return uint16(n), nil
}

// parsePublish reads [IP:]HOSTPORT:PORT; the address defaults to loopback.
func parsePublish(s string) (mesh.Publish, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return mesh.Publish{}, fmt.Errorf("say which port of this machine leads to which of the program, as in %s:%s", s, s)
	}
	port, err := parsePort(s[i+1:])
	if err != nil {
		return mesh.Publish{}, err
	}
	host := s[:i]
	if !strings.Contains(host, ":") {
		host = "127.0.0.1:" + host
	}
	addr, err := netip.ParseAddrPort(host)
	if err != nil || addr.Port() == 0 {
		return mesh.Publish{}, fmt.Errorf("%q is not [IP:]HOSTPORT with a port of 1 to 65535", s[:i])
	}
	return mesh.Publish{Host: addr, Port: port}, nil
}
