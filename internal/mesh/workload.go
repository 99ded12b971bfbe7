package mesh

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Names that stand for "not known", as Istio writes them.
const (
	Unknown        = "unknown"
	LatestRevision = "latest"
	// DefaultCluster is the cluster id of a mesh that was given none.
	DefaultCluster = "Kubernetes"
	// DefaultDomain and DefaultNamespace are Kubernetes' defaults.
	DefaultDomain    = "cluster.local"
	DefaultNamespace = "default"
)

// Workload is one running replica as the mesh knows it: what Kubernetes calls a
// pod. It is the unit that has a mesh IP, a proxy and a reporter.
type Workload struct {
	Name           string            // pod-like name, unique in its namespace: web-app-v1-6f9c7d-x2k4q
	Namespace      string            //
	Owner          string            // workload name of the metrics: web-app-v1
	OwnerKind      WorkloadKind      //
	ServiceAccount string            //
	Cluster        string            // cluster id; DefaultCluster when not set
	Labels         map[string]string // of the pod
	IP             netip.Addr        // mesh IP (see IP), stable for the life of Name
	CaseIP         netip.Addr        // address inside the case (see CaseIP4)
	CaseIP6        netip.Addr        // invalid when IPv6 is off
	Ports          []WorkloadPort    // declared ports, in wire-port order
	Ready          bool              // passes its readiness probe and is not ending
}

// WorkloadPort is one port that a workload's program listens on.
type WorkloadPort struct {
	Name     string
	Port     uint16   // number the program listens on
	Protocol Protocol // declared by the container port or a Service that targets it
	WirePort uint16   // where the proxy serves it on the mesh IP (see WirePort)
}

// App is the app label of the metrics (app.kubernetes.io/name, then app), or "".
func (w *Workload) App() string { return first(w.Labels, "app.kubernetes.io/name", "app") }

// Version is the version label of the metrics, or "".
func (w *Workload) Version() string { return first(w.Labels, "app.kubernetes.io/version", "version") }

// CanonicalName is Istio's canonical service name; the owner's name if no label says so.
func (w *Workload) CanonicalName() string {
	if s := first(w.Labels, "service.istio.io/canonical-name", "app.kubernetes.io/name", "app"); s != "" {
		return s
	}
	return w.Owner
}

// CanonicalRevision is Istio's canonical revision; "latest" if no label says so.
func (w *Workload) CanonicalRevision() string {
	if s := first(w.Labels, "service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"); s != "" {
		return s
	}
	return LatestRevision
}

// WirePortOf finds the wire address of the program's TCP port.
func (w *Workload) WirePortOf(port uint16) (netip.AddrPort, bool) {
	for i := range w.Ports {
		if w.Ports[i].Port == port && w.Ports[i].Protocol != ProtocolUDP {
			return netip.AddrPortFrom(w.IP, w.Ports[i].WirePort), true
		}
	}
	return netip.AddrPort{}, false
}

// NodeID is the id by which the workload's proxy asks for its configuration,
// in Istio's form: sidecar~IP~NAME.NAMESPACE~NAMESPACE.svc.DOMAIN.
func (w *Workload) NodeID() string {
	return "sidecar~" + w.IP.String() + "~" + w.Name + "." + w.Namespace + "~" + w.Namespace + ".svc." + DefaultDomain
}

// ParseNodeID finds the workload's Key in a node id of NodeID's form, of any
// domain and any kind of node (gateways have another first part).
func ParseNodeID(id string) (key string, err error) {
	parts := strings.Split(id, "~")
	if len(parts) != 4 {
		return "", fmt.Errorf("node id %q: want sidecar~IP~NAME.NAMESPACE~NAMESPACE.svc.DOMAIN", id)
	}
	namespace, _, ok := strings.Cut(parts[3], ".svc.")
	name, found := strings.CutSuffix(parts[2], "."+namespace)
	if !ok || !found || namespace == "" || name == "" {
		return "", fmt.Errorf("node id %q: %q is not NAME.NAMESPACE of domain %q", id, parts[2], parts[3])
	}
	return namespace + "/" + name, nil
}

// Key is namespace/name, unique in a mesh.
func (w *Workload) Key() string { return w.Namespace + "/" + w.Name }

// Matches reports whether every entry of a non-empty selector is among the labels.
func (w *Workload) Matches(selector map[string]string) bool {
	if len(selector) == 0 {
		return false
	}
	for k, v := range selector {
		if got, ok := w.Labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// Clone returns a deep copy that the caller owns.
func (w *Workload) Clone() Workload {
	c := *w
	c.Ports = slices.Clone(w.Ports)
	c.Labels = maps.Clone(w.Labels)
	return c
}

func first(labels map[string]string, keys ...string) string {
	for _, k := range keys {
		if v := labels[k]; v != "" {
			return v
		}
	}
	return ""
}
