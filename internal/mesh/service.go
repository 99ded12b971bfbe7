package mesh

import (
	"net/netip"
	"strings"
)

// ServiceRef names a service as the destination_service* labels do.
type ServiceRef struct {
	Host      string // web-app.default.svc.cluster.local
	Name      string // web-app
	Namespace string // default
}

// IsZero reports whether no service is named.
func (r ServiceRef) IsZero() bool { return r == ServiceRef{} }

// ShortNames are the names by which programs of the given namespace may call the
// service, apart from Host: name.ns.svc, name.ns and, in its own namespace, the name
// alone. A host outside the cluster's domain has none.
func (r ServiceRef) ShortNames(namespace string) []string {
	qualified := r.Name + "." + r.Namespace
	if !strings.HasPrefix(r.Host, qualified+".svc.") {
		return nil
	}
	names := []string{qualified + ".svc", qualified}
	if r.Namespace == namespace {
		names = append(names, r.Name)
	}
	return names
}

// Service is a name with virtual addresses and ports that stands for the
// workloads its selector finds.
type Service struct {
	ServiceRef
	VIP4     netip.Addr // invalid for a headless service
	VIP6     netip.Addr // invalid for a headless service or when IPv6 is off
	Headless bool       // the name resolves to the workloads' own addresses
	Selector map[string]string
	Ports    []ServicePort
	// PublishNotReady says that workloads are behind the service, with endpoints
	// and names, whether they are ready or not: members that have to find each
	// other before any of them is (publishNotReadyAddresses).
	PublishNotReady bool
}

// ServicePort is one port of a service.
type ServicePort struct {
	Name       string
	Port       uint16 // what clients dial
	TargetPort uint16 // what the program listens on; 0 when TargetName is set
	TargetName string // name of a container port, resolved per workload
	Protocol   Protocol
	// Publish lists addresses on the host's loopback where the port is open to
	// the world outside the mesh (Service type LoadBalancer or NodePort).
	Publish []netip.AddrPort
}

// Target finds the program's port for workload w; ok is false when w has no
// port of that name.
func (p *ServicePort) Target(w *Workload) (port uint16, ok bool) {
	if p.TargetName == "" {
		if p.TargetPort == 0 {
			return p.Port, true
		}
		return p.TargetPort, true
	}
	for i := range w.Ports {
		if w.Ports[i].Name == p.TargetName {
			return w.Ports[i].Port, true
		}
	}
	return 0, false
}

// Endpoint is one address that serves a port of a service.
type Endpoint struct {
	Address  netip.AddrPort // wire address: the mesh IP and wire port of the workload
	Workload string         // Key of the workload behind it; "" if it is outside the mesh
	Weight   uint32         // 0 means 1
}

// Snapshot is all configuration of the mesh at one version. It is immutable.
type Snapshot struct {
	Version   uint64     // grows by at least one with each publication
	Net       uint8      // network byte of the mesh IPs (see IP)
	Services  []Service  // sorted by Host
	Workloads []Workload // sorted by Key; those not ready are included
}
