package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/vitrine-mesh/vitrine/internal/intercept"
	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/proxy"
)

// caseConfig says what case a pod lives in.
func caseConfig(b *pod.Bootstrap) intercept.Config {
	w := &b.Workload
	cfg := intercept.Config{
		IP4: w.CaseIP, IP6: w.CaseIP6, MeshOnly: mesh.OwnPrefixes(),
		Search: []string{w.Namespace + ".svc." + mesh.DefaultDomain, "svc." + mesh.DefaultDomain, mesh.DefaultDomain},
	}
	if !b.Foreground {
		cfg.Hostname = w.Name
	}
	seen := map[string]bool{}
	for _, list := range [][]mesh.Container{b.Set.InitContainers, b.Set.Containers} {
		for i := range list {
			for _, m := range list[i].Mounts() {
				if seen[m.Path] {
					continue // the same for all containers: Validate checked it
				}
				seen[m.Path] = true
				for _, f := range m.Files {
					data := f.Data
					if f.FieldPath != "" {
						data = []byte(b.Field(f.FieldPath))
					}
					cfg.Files = append(cfg.Files, intercept.File{Path: f.Path, Data: data, Mode: fs.FileMode(f.Mode).Perm(), Mount: f.Mount})
				}
				if m.Volume != "" {
					cfg.Dirs = append(cfg.Dirs, intercept.Dir{Path: m.Path, Volume: m.Volume})
				}
			}
		}
	}
	return cfg
}

// podCase is intercept.Case as the pod's runtime uses it.
type podCase struct {
	c   *intercept.Case
	net uint8 // network byte of the mesh IPs
}

func (p podCase) Start(prog pod.Program) (pod.Process, error) {
	proc, err := p.c.Start(intercept.Program{
		Args: prog.Args, Env: prog.Env, Dir: prog.Dir,
		Stdin: prog.Stdin, Stdout: prog.Stdout, Stderr: prog.Stderr, NewSession: prog.NewSession,
	})
	if se := (*intercept.StartError)(nil); errors.As(err, &se) {
		cause := os.ErrPermission
		if se.Code == 127 {
			cause = os.ErrNotExist
		}
		return nil, &startError{error: err, cause: cause}
	}
	if err != nil {
		return nil, err // the case failed, not the program
	}
	return podProcess{proc}, nil
}

// startError keeps the text of an error and says what kind it is.
type startError struct {
	error
	cause error
}

func (e *startError) Unwrap() []error { return []error{e.error, e.cause} }

func (p podCase) Exec(ctx context.Context, prog pod.Program) error {
	exit, out, err := p.c.Exec(ctx, prog.Args, prog.Env, prog.Dir)
	if err != nil {
		return err
	}
	said := strings.TrimSpace(string(out))
	switch {
	case exit.Status() == 0:
		return nil
	case said == "":
		return errors.New(exit.String())
	}
	return fmt.Errorf("%s: %s", exit, said)
}

func (p podCase) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	conn, err := p.c.Dial(ctx, intercept.Client{}, port)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// dialProgram connects the proxy to a program, which sees source as its client: at an
// address of the pod, or wherever it listens if target is only a port.
func (p podCase) dialProgram(ctx context.Context, source netip.Addr, target netip.AddrPort) (net.Conn, error) {
	var conn *net.TCPConn
	var err error
	if client := p.clientOf(source); target.Addr().IsValid() {
		conn, err = p.c.DialAt(ctx, client, target)
	} else {
		conn, err = p.c.Dial(ctx, client, target.Port())
	}
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// clientOf are the addresses of a client in cases: a workload has one of each family.
func (p podCase) clientOf(source netip.Addr) intercept.Client {
	source = source.Unmap()
	switch i, ok := mesh.IndexOf(p.net, source); {
	case ok:
		return intercept.Client{IP4: mesh.CaseIP4(i), IP6: mesh.CaseIP6(i)}
	case source.Is4():
		return intercept.Client{IP4: source}
	}
	return intercept.Client{IP6: source}
}

type podProcess struct{ *intercept.Process }

func (p podProcess) Signal(sig syscall.Signal) error {
	if err := p.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

func (p podProcess) Wait() pod.Exit {
	e := p.Process.Wait()
	return pod.Exit{Code: e.Code, Signal: e.Signal, CPUTime: p.CPUTime()}
}

// outbound is the case's listener as the proxy uses it.
type outbound struct{ c *intercept.Case }

func (o outbound) Accept() (proxy.Conn, error) {
	c, err := o.c.Outbound().Accept()
	if err != nil {
		return proxy.Conn{}, err
	}
	return proxy.Conn{Conn: c.TCPConn, OrigDst: c.OrigDst, Source: c.Source, Localhost: c.Localhost}, nil
}

// Close ends the case with everything in it. The proxy calls it at the end of
// ServeOutbound, when no program is left.
func (o outbound) Close() error { return o.c.Close() }
