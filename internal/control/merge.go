package control

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// ownService is a deep copy of s without addresses and with a host name.
func (p *Plane) ownService(s *mesh.Service) mesh.Service {
	c := *s
	c.VIP4, c.VIP6 = netip.Addr{}, netip.Addr{}
	c.Selector = maps.Clone(s.Selector)
	c.Ports = slices.Clone(s.Ports)
	for i := range c.Ports {
		c.Ports[i].Publish = slices.Clone(c.Ports[i].Publish)
	}
	if c.Host == "" {
		c.Host = c.Name + "." + c.Namespace + ".svc." + p.opts.Domain
	}
	c.Host = strings.ToLower(c.Host)
	return c
}

// mergeServices joins the services of all sources, sorted by host, each with
// its virtual IPs. Of two sources that name the same host the one with the
// lesser name wins, so that the order of arrival never matters.
func (p *Plane) mergeServices() []mesh.Service {
	type claim struct {
		source string
		svc    *mesh.Service
	}
	byHost := map[string]claim{}
	said := map[string]string{}
	for _, source := range slices.Sorted(maps.Keys(p.sources)) {
		for i := range p.sources[source] {
			svc := &p.sources[source][i]
			if first, ok := byHost[svc.Host]; ok {
				said[svc.Host] = fmt.Sprintf("%q and %q", first.source, source)
				continue
			}
			byHost[svc.Host] = claim{source: source, svc: svc}
		}
	}
	p.reportConflicts(said)
	p.releaseVIPs(func(host string) bool { c, ok := byHost[host]; return ok && !c.svc.Headless })
	var out []mesh.Service
	for _, host := range slices.Sorted(maps.Keys(byHost)) {
		svc := *byHost[host].svc
		if !svc.Headless {
			p.assignVIP(&svc)
		}
		out = append(out, svc)
	}
	return out
}

func (p *Plane) reportConflicts(said map[string]string) {
	for host, sources := range said {
		if p.conflicts[host] != sources {
			p.opts.Log.Warn("service is defined twice, the first one counts", "host", host, "sources", sources)
		}
	}
	p.conflicts = said
	p.metrics.conflicts.Set(float64(len(said)))
}

func (p *Plane) releaseVIPs(keep func(host string) bool) {
	var gone []string
	for host, e := range p.vips.byKey {
		if e.idle == nil && !keep(host) {
			gone = append(gone, host)
		}
	}
	slices.Sort(gone)
	for _, host := range gone {
		p.vips.release(host)
	}
}

func (p *Plane) assignVIP(svc *mesh.Service) {
	k, ok := p.vips.take(svc.Host)
	if !ok {
		p.metrics.noIP.Inc()
		p.opts.Log.Error("no virtual IP is left", "host", svc.Host)
		return
	}
	svc.VIP4 = mesh.ServiceVIP4(k)
	if !p.opts.DisableIPv6 {
		svc.VIP6 = mesh.ServiceVIP6(k)
	}
}

// address completes the addresses and wire ports of w. p.mu is held.
func (p *Plane) address(w *mesh.Workload) error {
	key := w.Key()
	index, ok := mesh.IndexOf(p.opts.Net, w.IP)
	if w.IP.IsValid() && (!ok || !w.IP.IsLoopback()) {
		return fmt.Errorf("address %v is not in the mesh network 127.%d.0.0/16", w.IP, p.opts.Net)
	}
	if ok {
		if loser := p.indexes.claim(key, uint16(index)); loser != "" {
			p.opts.Log.Error("two workloads have one address, the newer one keeps it", "address", w.IP, "workload", key, "other", loser)
		}
	} else {
		num, ok := p.indexes.take(key)
		if !ok {
			return fmt.Errorf("all %d addresses of the mesh are in use", len(p.indexes.byNum))
		}
		index = mesh.Index(num)
	}
	w.IP, w.CaseIP = mesh.IP(p.opts.Net, index), mesh.CaseIP4(index)
	w.CaseIP6 = netip.Addr{}
	if !p.opts.DisableIPv6 {
		w.CaseIP6 = mesh.CaseIP6(index)
	}
	for i := range w.Ports {
		if w.Ports[i].WirePort != 0 {
			continue
		}
		wire, err := mesh.WirePort(i)
		if err != nil {
			return err
		}
		w.Ports[i].WirePort = wire
	}
	return nil
}

// mergeWorkloads lists the workloads sorted by key. A service may target a
// port that the workload does not declare (in Kubernetes containerPort is only
// information); such ports are added, so that they have a wire port. The ports of a
// program of `vitrine run` are those that it was given: it has the labels of a service
// by being named as one, and serves no port of that which is not its own.
func (p *Plane) mergeWorkloads(services []mesh.Service) []mesh.Workload {
	var out []mesh.Workload
	for _, key := range slices.Sorted(maps.Keys(p.workloads)) {
		w := p.workloads[key]
		if w.OwnerKind != mesh.KindProgram {
			w.Ports = slices.Concat(w.Ports, p.undeclared(&w, services))
		}
		out = append(out, w)
	}
	return out
}

// wirePorts remembers which wire ports a workload's undeclared ports got, so
// that a wire port never changes its meaning while connections use it.
type wirePorts struct {
	byPort map[uint16]uint16
	used   map[uint16]bool
}

func (p *Plane) undeclared(w *mesh.Workload, services []mesh.Service) []mesh.WorkloadPort {
	var added []mesh.WorkloadPort
	for i := range services {
		if !selects(&services[i], w) {
			continue
		}
		for j := range services[i].Ports {
			sp := &services[i].Ports[j]
			port, ok := sp.Target(w)
			_, declared := w.WirePortOf(port)
			twice := slices.ContainsFunc(added, func(wp mesh.WorkloadPort) bool { return wp.Port == port })
			if ok && !declared && !twice && sp.Protocol != mesh.ProtocolUDP {
				added = append(added, mesh.WorkloadPort{Port: port, Protocol: sp.Protocol})
			}
		}
	}
	slices.SortFunc(added, func(a, b mesh.WorkloadPort) int { return cmp.Compare(a.Port, b.Port) })
	kept := added[:0]
	for _, wp := range added {
		if wp.WirePort = p.wirePort(w, wp.Port); wp.WirePort != 0 {
			kept = append(kept, wp)
		}
	}
	return kept
}

// wirePort finds the wire port of an undeclared port; 0 when none is left.
func (p *Plane) wirePort(w *mesh.Workload, port uint16) uint16 {
	wires := p.wires[w.Key()]
	if wires == nil {
		wires = &wirePorts{byPort: map[uint16]uint16{}, used: map[uint16]bool{}}
		p.wires[w.Key()] = wires
	}
	for i := range w.Ports {
		wires.used[w.Ports[i].WirePort] = true
	}
	if wire := wires.byPort[port]; wire != 0 {
		return wire
	}
	for i := len(w.Ports); i < mesh.MaxWirePorts; i++ {
		wire, err := mesh.WirePort(i)
		if err == nil && !wires.used[wire] {
			wires.byPort[port], wires.used[wire] = wire, true
			return wire
		}
	}
	p.opts.Log.Warn("workload has too many ports, one is left out", "workload", w.Key(), "port", port)
	return 0
}

// onlyReadiness reports whether a and b differ in nothing but Ready.
func onlyReadiness(a, b *mesh.Workload) bool {
	c := *a
	c.Ready = b.Ready
	return reflect.DeepEqual(c, *b)
}
