package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// listedWait is how long a program waits for other proxies to learn of it. They
// need milliseconds, or seconds while everything changes.
const listedWait = 3 * time.Second

// gracePeriod is what a program has between SIGTERM and SIGKILL, Kubernetes'
// default.
const gracePeriod = 30 * time.Second

// register makes the workload and the service of a program that the caller is
// about to execute.
func (m *Mesh) register(ctx context.Context, r *RunRequest) (RunResponse, error) {
	set, service, err := programOf(r)
	if err != nil {
		return RunResponse{}, err
	}
	mine, done, err := m.reserve(&service)
	if err != nil {
		return RunResponse{}, err
	}
	defer done()
	if err := checkPublished(ctx, []mesh.Service{service}, mine); err != nil {
		return RunResponse{}, err
	}
	w, bootstrap, err := m.local.Prepare(set)
	if err != nil {
		return RunResponse{}, err
	}
	m.mu.Lock()
	m.runs[w.Key()] = service
	m.plane.SetServices("run", m.runServices())
	m.mu.Unlock()
	limit, cancel := context.WithTimeout(ctx, listedWait)
	defer cancel()
	if err := m.awaitListed(limit, w.Key()); err != nil { // a proxy that hangs must not keep the program
		m.io.Log.WarnContext(ctx, "program starts although not every proxy knows it", "pod", w.Key(), "error", err)
	}
	return RunResponse{Pod: w.Name, Namespace: w.Namespace, IP: w.IP.String(), Bootstrap: bootstrap}, nil
}

// reserve keeps the published addresses of a service from every other service of
// this mesh until done is called: proxies share an address with each other, so of
// two services that take one at the same moment neither would notice. mine are
// the addresses that programs of the same service have or are about to have.
func (m *Mesh) reserve(service *mesh.Service) (mine map[netip.AddrPort]bool, done func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wanted := map[netip.AddrPort]bool{}
	for _, p := range publishedBy([]mesh.Service{*service}) {
		wanted[p.address] = true
	}
	mine = map[netip.AddrPort]bool{}
	name := service.Name + "." + service.Namespace
	others := slices.Clone(m.coming)
	for _, r := range m.runs {
		others = append(others, &r)
	}
	added := len(others)
	for i := range m.objs.Services {
		others = append(others, &m.objs.Services[i])
	}
	for i, other := range others {
		for _, p := range publishedBy([]mesh.Service{*other}) {
			switch {
			case p.service == name:
				mine[p.address] = mine[p.address] || i < added
			case wanted[p.address]:
				return nil, nil, fmt.Errorf("service %s wants %s, which is in use by service %s: choose another port, or end that one first", name, p.address, p.service)
			}
		}
	}
	m.coming = append(m.coming, service)
	return mine, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.coming = slices.DeleteFunc(m.coming, func(s *mesh.Service) bool { return s == service })
	}, nil
}

// unregister forgets a program that ended; its service goes with the last one.
func (m *Mesh) unregister(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.runs[key]; !ok {
		return
	}
	delete(m.runs, key)
	m.plane.SetServices("run", m.runServices())
}

// runServices merges equal services of programs: a service has the ports of all
// its programs. A service that the files define too is theirs.
// m.mu is held.
func (m *Mesh) runServices() []mesh.Service {
	fromFiles := map[mesh.ServiceRef]bool{}
	for i := range m.objs.Services {
		s := &m.objs.Services[i]
		fromFiles[mesh.ServiceRef{Name: s.Name, Namespace: s.Namespace}] = true
	}
	merged := map[string]mesh.Service{}
	for _, key := range slices.Sorted(maps.Keys(m.runs)) {
		s := m.runs[key]
		if fromFiles[mesh.ServiceRef{Name: s.Name, Namespace: s.Namespace}] {
			continue
		}
		old, ok := merged[s.Host]
		if !ok {
			s.Ports = slices.Clone(s.Ports)
			merged[s.Host] = s
			continue
		}
		for _, p := range s.Ports {
			i := slices.IndexFunc(old.Ports, func(o mesh.ServicePort) bool { return o.Port == p.Port })
			if i < 0 {
				old.Ports = append(old.Ports, p)
				continue
			}
			for _, a := range p.Publish {
				if !slices.Contains(old.Ports[i].Publish, a) {
					old.Ports[i].Publish = append(slices.Clip(old.Ports[i].Publish), a)
				}
			}
		}
		merged[s.Host] = old
	}
	return slices.SortedFunc(maps.Values(merged), func(a, b mesh.Service) int { return cmp.Compare(a.Host, b.Host) })
}

// Validate tells everything that is wrong with the request itself, whatever else
// runs in the mesh.
func (r *RunRequest) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(r.Args) == 0 {
		wrong("no command given")
	}
	if !validName(r.Service) {
		wrong("service name %q: use lower-case letters, digits and dashes, at most 63", r.Service)
	}
	if r.Namespace != "" && !validName(r.Namespace) {
		wrong("namespace name %q: use lower-case letters, digits and dashes, at most 63", r.Namespace)
	}
	if r.Version != "" && validName(r.Service) && !validName(r.setName()) {
		wrong("version %q cannot be part of a name: use letters, digits, dots and dashes, at most %d", r.Version, max(0, 62-len(r.Service)))
	}
	protocols := map[uint16]string{}
	for _, p := range r.Ports {
		if was, twice := protocols[p.Port]; twice && was != p.Protocol {
			wrong("port %d is given with two protocols, %q and %q: give it once", p.Port, was, p.Protocol)
		}
		protocols[p.Port] = p.Protocol
	}
	hosts := map[netip.AddrPort]uint16{}
	for _, p := range r.Publish {
		if port, twice := hosts[p.Host]; twice && port != p.Port {
			wrong("%s is published for two ports, %d and %d: choose another address for one", p.Host, port, p.Port)
		}
		hosts[p.Host] = p.Port
	}
	for _, key := range slices.Sorted(maps.Keys(r.Labels)) {
		switch value := r.Labels[key]; {
		case key == "app" && value != r.Service:
			wrong("label app is the service's name: change that")
		case key == "version" && value != r.Version:
			wrong("label version is set by the version: change that")
		case !validLabel(key, value):
			wrong("label %s=%s: use letters, digits, dashes, underscores and dots, at most 63, as Kubernetes does", key, value)
		}
	}
	return errors.Join(errs...)
}

// setName is the name of the request's workload set, service and version.
func (r *RunRequest) setName() string {
	if r.Version == "" {
		return r.Service
	}
	return r.Service + "-" + strings.ToLower(strings.NewReplacer(".", "-", "_", "-").Replace(r.Version))
}

// programOf is the workload set and the service that a request asks for.
func programOf(r *RunRequest) (mesh.WorkloadSet, mesh.Service, error) {
	if err := r.Validate(); err != nil {
		return mesh.WorkloadSet{}, mesh.Service{}, err
	}
	r.Namespace = cmp.Or(r.Namespace, mesh.DefaultNamespace)
	labels := map[string]string{"app": r.Service}
	if r.Version != "" {
		labels["version"] = r.Version
	}
	maps.Copy(labels, r.Labels)
	container := mesh.Container{Name: r.Service, Args: r.Args, Dir: r.Dir}
	for _, p := range r.Ports {
		protocol := mesh.ProtocolFromPort(p.Protocol, "", "", p.Port)
		container.Ports = append(container.Ports, mesh.ContainerPort{Name: fmt.Sprintf("%s-%d", protocol, p.Port), Port: p.Port, Protocol: protocol})
	}
	for _, p := range r.Publish {
		if !slices.ContainsFunc(container.Ports, func(c mesh.ContainerPort) bool { return c.Port == p.Port }) {
			container.Ports = append(container.Ports, mesh.ContainerPort{
				Name: fmt.Sprintf("port-%d", p.Port), Port: p.Port, Protocol: mesh.ProtocolFromPort("", "", "", p.Port),
			})
		}
	}
	set := mesh.WorkloadSet{
		Kind: mesh.KindProgram, Namespace: r.Namespace, Name: r.setName(), Replicas: 1, Labels: labels,
		ServiceAccount: "default", Restart: mesh.RestartNever, GracePeriod: gracePeriod,
		Containers: []mesh.Container{container}, Publish: r.Publish,
	}
	return set, serviceOf(&set), nil
}

// serviceOf is the service that a set made by programOf stands for. It depends
// on nothing else, so that it can be made again for a program that outlived its
// control plane.
func serviceOf(set *mesh.WorkloadSet) mesh.Service {
	name := set.Containers[0].Name
	s := mesh.Service{
		ServiceRef: mesh.ServiceRef{Name: name, Namespace: set.Namespace, Host: name + "." + set.Namespace + ".svc." + mesh.DefaultDomain},
		Selector:   map[string]string{"app": name},
	}
	for _, p := range set.Containers[0].Ports {
		sp := mesh.ServicePort{Name: p.Name, Port: p.Port, TargetPort: p.Port, Protocol: p.Protocol}
		for _, o := range set.Publish {
			if o.Port == p.Port {
				sp.Publish = append(sp.Publish, o.Host)
			}
		}
		s.Ports = append(s.Ports, sp)
	}
	return s
}

// readopt registers the programs of `vitrine run` that outlived the control
// plane which knew them.
func (m *Mesh) readopt(live []*pod.Bootstrap) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range live {
		if b.Set.Kind == mesh.KindProgram {
			m.runs[b.Workload.Key()] = serviceOf(&b.Set)
		}
	}
}

// validLabel is Kubernetes' rule for labels: a name, after a DNS name and a slash
// if it likes, and a value that looks like a name or is empty.
func validLabel(key, value string) bool {
	word := func(s string) bool {
		return s != "" && len(s) <= 63 && !strings.ContainsFunc(s, func(r rune) bool { return !alphanumeric(r) && !strings.ContainsRune("-_.", r) }) &&
			alphanumeric(rune(s[0])) && alphanumeric(rune(s[len(s)-1]))
	}
	prefix, name, ok := strings.Cut(key, "/")
	if !ok {
		prefix, name = "x", key
	}
	for part := range strings.SplitSeq(prefix, ".") {
		if !validName(part) {
			return false
		}
	}
	return word(name) && (value == "" || word(value))
}

func alphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// validName is DNS-1123's rule for labels, which Kubernetes names follow.
func validName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range s {
		if c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
