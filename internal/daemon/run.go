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

// registration is one program added by `vitrine run`.
type registration struct {
	service mesh.Service
}

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
	m.runs[w.Key()] = registration{service: service}
	m.plane.SetServices("run", m.runServices())
	m.mu.Unlock()
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
		others = append(others, &r.service)
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

// runServices merges the registrations of equal services: a service has the
// ports of all its programs. A service that the files define too is theirs.
// m.mu is held.
func (m *Mesh) runServices() []mesh.Service {
	fromFiles := map[mesh.ServiceRef]bool{}
	for i := range m.objs.Services {
		s := &m.objs.Services[i]
		fromFiles[mesh.ServiceRef{Name: s.Name, Namespace: s.Namespace}] = true
	}
	merged := map[string]mesh.Service{}
	for _, key := range slices.Sorted(maps.Keys(m.runs)) {
		s := m.runs[key].service
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

// programOf is the workload set and the service that a request asks for.
func programOf(r *RunRequest) (mesh.WorkloadSet, mesh.Service, error) {
	if len(r.Args) == 0 {
		return mesh.WorkloadSet{}, mesh.Service{}, errors.New("no command given")
	}
	r.Namespace = cmp.Or(r.Namespace, mesh.DefaultNamespace)
	for what, name := range map[string]string{"service": r.Service, "namespace": r.Namespace} {
		if !validName(name) {
			return mesh.WorkloadSet{}, mesh.Service{}, fmt.Errorf("%s name %q: use lower-case letters, digits and dashes, at most 63", what, name)
		}
	}
	labels := map[string]string{"app": r.Service}
	name := r.Service
	if r.Version != "" {
		labels["version"] = r.Version
		name += "-" + strings.ToLower(strings.NewReplacer(".", "-", "_", "-").Replace(r.Version))
		if !validName(name) {
			return mesh.WorkloadSet{}, mesh.Service{}, fmt.Errorf("version %q cannot be part of a name: use letters, digits, dots and dashes", r.Version)
		}
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
		Kind: mesh.KindProgram, Namespace: r.Namespace, Name: name, Replicas: 1, Labels: labels,
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
			m.runs[b.Workload.Key()] = registration{service: serviceOf(&b.Set)}
		}
	}
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
