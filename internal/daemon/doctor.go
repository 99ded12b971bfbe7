package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vitrine-mesh/vitrine/internal/intercept"
)

// Check is one thing that Vitrine needs of the machine.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// Doctor tries everything that a mesh of this configuration needs: the
// namespaces and rules of a case in a child process, ports, limits and
// directories. Only these and the addresses of cfg count; what cfg leaves out is as the
// mesh of the run directory has it, or else the default.
func Doctor(ctx context.Context, cfg Config) []Check {
	setDefault(&cfg.RunDir, DefaultRunDir())
	var checks []Check
	proxy, err := findProxy()
	check := Check{Name: "vitrine-proxy", OK: err == nil, Detail: proxy}
	if err != nil {
		check.Detail, check.Remedy = err.Error(), "run `make build`, or install vitrine-proxy beside vitrine"
	}
	checks = append(checks, check)
	if err == nil {
		for _, c := range intercept.Diagnose(ctx, proxy) {
			checks = append(checks, Check(c))
		}
	}
	mesh, status := checkMesh(ctx, cfg.RunDir)
	checks = append(checks, mesh)
	ours := map[string]bool{}
	if status != nil {
		prometheus, control := strings.TrimPrefix(status.Prometheus, "http://"), strings.TrimPrefix(status.Control, "http://")
		ours[prometheus], ours[control] = true, true
		setDefault(&cfg.PrometheusAddr, prometheus)
		setDefault(&cfg.ControlAddr, control)
	}
	setDefault(&cfg.DataDir, readState(cfg.RunDir).DataDir)
	cfg.setDefaults()
	for _, p := range []struct{ name, addr, flag string }{
		{"Prometheus API", cfg.PrometheusAddr, "--prometheus-addr"},
		{"control-plane metrics", cfg.ControlAddr, "--control-addr"},
	} {
		checks = append(checks, checkPort(ctx, p.name, p.addr, p.flag, ours[p.addr]))
	}
	return append(checks, checkDir("run directory", cfg.RunDir, "--run-dir"), checkDir("data directory", cfg.DataDir, "--data-dir"))
}

// checkMesh tells of a mesh in runDir, whether there is one or not: not to answer is a
// fault of one that has left programs running. running is nil if none answers.
func checkMesh(ctx context.Context, runDir string) (c Check, running *Status) {
	c = Check{Name: "mesh", OK: true}
	s, err := NewClient(runDir).Status(ctx)
	n := len(livePods(runDir))
	switch {
	case err == nil:
		c.Detail = fmt.Sprintf("runs, %d of %s ready", s.Ready, Count(s.Workloads, "workload"))
	case errors.Is(err, ErrNotRunning) && n == 0:
		c.Detail = "none runs"
	case errors.Is(err, ErrNotRunning):
		c.OK, c.Detail = false, "the control plane is gone and has left "+Count(n, "workload")+" running"
		c.Remedy = "run " + CommandLine(runDir, "up") + " with the same files, which takes over what runs, or " +
			CommandLine(runDir, "down") + ", which stops it"
	default:
		c.OK, c.Detail, c.Remedy = false, err.Error(), "look at what holds "+runDir+", or choose another directory with --run-dir"
	}
	if err != nil {
		return c, nil
	}
	return c, &s
}

// checkPort tries to listen on addr; while the mesh runs its own ports are in use, which
// is not a fault.
func checkPort(ctx context.Context, name, addr, flag string, ours bool) Check {
	c := Check{Name: name + " " + addr}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	switch {
	case err == nil:
		ln.Close()
		c.OK, c.Detail = true, "free"
	case ours && errors.Is(err, syscall.EADDRINUSE):
		c.OK, c.Detail = true, "in use, a mesh is running"
	default:
		c.Detail = err.Error()
		c.Remedy = "stop what listens there (ss -ltnp), or choose another address with " + flag
	}
	return c
}

// checkDir makes the directory if needed and writes a file in it.
func checkDir(name, dir, flag string) Check {
	c := Check{Name: name + " " + dir}
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		probe := filepath.Join(dir, ".doctor")
		if err = os.WriteFile(probe, []byte("x"), 0o600); err == nil {
			err = os.Remove(probe)
		}
	}
	if err != nil {
		c.Detail, c.Remedy = err.Error(), "choose another directory with "+flag
		return c
	}
	c.OK, c.Detail = true, "writable"
	return c
}

// ipv6Works reports whether this machine has IPv6 at all.
func ipv6Works() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return err == nil
}
