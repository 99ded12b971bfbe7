package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// published is one address of this machine that a service wants.
type published struct {
	address netip.AddrPort
	service string // NAME.NAMESPACE
}

// publishedBy lists the published addresses of services in their order.
func publishedBy(services []mesh.Service) []published {
	var out []published
	for i := range services {
		s := &services[i]
		for _, p := range s.Ports {
			for _, a := range p.Publish {
				out = append(out, published{a, s.Name + "." + s.Namespace})
			}
		}
	}
	return out
}

// checkPublished tries to open every address that services want, but for those
// in mine, which proxies of this mesh hold. Proxies themselves share a published
// port with each other, so they would not notice that another mesh has it.
func checkPublished(ctx context.Context, services []mesh.Service, mine map[netip.AddrPort]bool) error {
	var errs []error
	wanted := map[netip.AddrPort]string{}
	for _, p := range publishedBy(services) {
		if other, twice := wanted[p.address]; twice && other != p.service {
			errs = append(errs, fmt.Errorf("services %s and %s both want %s: change the port of one", other, p.service, p.address))
			continue
		}
		wanted[p.address] = p.service
		if mine[p.address] {
			continue
		}
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.address.String())
		switch {
		case err == nil:
			ln.Close()
		case errors.Is(err, syscall.EADDRINUSE):
			errs = append(errs, fmt.Errorf("service %s wants %s, which is in use: stop what listens there (`ss -ltnp` tells), or change the service's port", p.service, p.address))
		case errors.Is(err, syscall.EACCES):
			errs = append(errs, fmt.Errorf("service %s wants %s, which only root may open: choose a port above 1023, or run `sysctl net.ipv4.ip_unprivileged_port_start=%d` as root", p.service, p.address, p.address.Port()))
		default:
			errs = append(errs, fmt.Errorf("service %s wants %s: %w", p.service, p.address, err))
		}
	}
	return errors.Join(errs...)
}

// livePods are the bootstraps of the pods in runDir that have a process, which a
// control plane that was killed left behind.
func livePods(runDir string) []*pod.Bootstrap {
	var out []*pod.Bootstrap
	dirs, _ := pod.Dirs(filepath.Join(runDir, podsDir)) // what cannot be read is not ours
	for _, dir := range dirs {
		if pid, err := pod.Holder(dir); err != nil || pid == 0 {
			continue
		}
		if b, err := pod.ReadBootstrap(filepath.Join(dir, pod.BootstrapFile)); err == nil {
			out = append(out, b)
		}
	}
	return out
}

// inherited is what the pods that still run hold of published addresses: all
// that a service of their labels may have. A killed control plane leaves no
// record of them, so every address that is in use is taken for theirs if any of
// the service's pods runs.
func inherited(services []mesh.Service, live []*pod.Bootstrap) map[netip.AddrPort]bool {
	mine := map[netip.AddrPort]bool{}
	for i := range services {
		s := &services[i]
		if !slices.ContainsFunc(live, func(b *pod.Bootstrap) bool { return selects(s, &b.Workload) }) {
			continue
		}
		for _, p := range publishedBy(services[i : i+1]) {
			mine[p.address] = true
		}
	}
	return mine
}

// selects reports whether a workload belongs to a service.
func selects(s *mesh.Service, w *mesh.Workload) bool {
	return s.Namespace == w.Namespace && w.Matches(s.Selector)
}

// urlOf is how a published address is opened in a browser, or the address alone
// if it speaks something else.
func urlOf(a netip.AddrPort, protocol mesh.Protocol) string {
	switch protocol {
	case mesh.ProtocolHTTP, mesh.ProtocolAuto:
		return "http://" + a.String()
	default:
		return a.String() + " (" + protocol.String() + ")"
	}
}
