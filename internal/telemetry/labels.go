package telemetry

import (
	"cmp"
	"strings"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// Positions of the 20 labels that all metrics of an edge share, in Istio's order.
const (
	reporter = iota
	sourceWorkload
	sourceCanonicalService
	sourceCanonicalRevision
	sourceWorkloadNamespace
	sourcePrincipal
	sourceApp
	sourceVersion
	sourceCluster
	destinationWorkload
	destinationWorkloadNamespace
	destinationPrincipal
	destinationApp
	destinationVersion
	destinationService
	destinationCanonicalService
	destinationCanonicalRevision
	destinationServiceName
	destinationServiceNamespace
	destinationCluster
	commonLabels
)

// labelNames are the names at the positions above.
func labelNames() [commonLabels]string {
	return [commonLabels]string{
		"reporter", "source_workload", "source_canonical_service", "source_canonical_revision",
		"source_workload_namespace", "source_principal", "source_app", "source_version", "source_cluster",
		"destination_workload", "destination_workload_namespace", "destination_principal", "destination_app",
		"destination_version", "destination_service", "destination_canonical_service",
		"destination_canonical_revision", "destination_service_name", "destination_service_namespace",
		"destination_cluster",
	}
}

// Values of connection_security_policy.
const (
	policyUnknown = mesh.Unknown // every source reporter
	policyNone    = "none"
	policyMutual  = "mutual_tls"
)

// edgeLabels are the label values of one edge.
type edgeLabels struct {
	values [commonLabels]string
	policy string
}

func (l *edgeLabels) value(i int) string { return l.values[i] }

// id is equal for equal labels only: escaped values hold no bare quote.
func (l *edgeLabels) id() string { return l.common() + " " + l.policy }

// common renders the labels without braces. Empty values are left out: for
// Prometheus an empty label and no label are the same.
func (l *edgeLabels) common() string {
	var b []byte
	names := labelNames()
	for i, v := range l.values {
		b = appendLabel(b, names[i], v)
	}
	return string(b)
}

// appendLabel adds name="value" with a comma before it unless b is empty.
func appendLabel(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	if len(b) > 0 {
		b = append(b, ',')
	}
	b = append(b, name...)
	b = append(b, '=', '"')
	b = appendEscaped(b, value)
	return append(b, '"')
}

// appendEscaped escapes a label value as both text formats want it.
func appendEscaped(b []byte, v string) []byte {
	v = strings.ToValidUTF8(v, "\uFFFD")
	for i := range len(v) {
		switch c := v[i]; c {
		case '\\', '"':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		default:
			b = append(b, c)
		}
	}
	return b
}

// labelsOf applies Istio's value rules (reference: telemetry semantics 1.3).
func (r *Recorder) labelsOf(k *EdgeKey) edgeLabels {
	var l edgeLabels
	v := &l.values
	self := &r.o.Self
	local, peer := sourceSide(v), destinationSide(v)
	localPrincipal, peerPrincipal := k.SourcePrincipal, k.DestinationPrincipal
	v[reporter] = "source"
	l.policy = policyUnknown
	serverSide := k.Direction == mesh.Inbound && !r.o.Gateway
	if serverSide {
		local, peer = peer, local
		localPrincipal, peerPrincipal = peerPrincipal, localPrincipal
		v[reporter] = "destination"
		l.policy = policyNone
		if k.SourcePrincipal != "" && k.DestinationPrincipal != "" {
			l.policy = policyMutual
		}
	}
	local.setLocal(self, localPrincipal)
	peer.setPeer(k.Peer, peerPrincipal)
	if serverSide {
		name := self.CanonicalName()
		v[destinationService] = cmp.Or(k.Service.Host, name)
		v[destinationServiceName] = cmp.Or(k.ServiceName, k.Service.Name, firstDNSLabel(k.Service.Host), name)
		v[destinationServiceNamespace] = self.Namespace
		return l
	}
	v[destinationService] = cmp.Or(k.Service.Host, k.HostFallback, mesh.Unknown)
	v[destinationServiceName] = cmp.Or(k.ServiceName, k.Service.Name, firstDNSLabel(k.Service.Host), k.HostFallback, mesh.Unknown)
	v[destinationServiceNamespace] = cmp.Or(k.Service.Namespace, v[destinationWorkloadNamespace], mesh.Unknown)
	return l
}

// side points at the values of one end of an edge.
type side struct {
	workload, canonical, revision, namespace, principal, app, version, cluster *string
}

func sourceSide(v *[commonLabels]string) side {
	return side{
		&v[sourceWorkload], &v[sourceCanonicalService], &v[sourceCanonicalRevision], &v[sourceWorkloadNamespace],
		&v[sourcePrincipal], &v[sourceApp], &v[sourceVersion], &v[sourceCluster],
	}
}

func destinationSide(v *[commonLabels]string) side {
	return side{
		&v[destinationWorkload], &v[destinationCanonicalService], &v[destinationCanonicalRevision],
		&v[destinationWorkloadNamespace], &v[destinationPrincipal], &v[destinationApp], &v[destinationVersion],
		&v[destinationCluster],
	}
}

// setLocal fills in this proxy's own workload; what it has not stays empty.
func (s side) setLocal(w *mesh.Workload, principal string) {
	*s.workload, *s.canonical, *s.revision = w.Owner, w.CanonicalName(), w.CanonicalRevision()
	*s.namespace, *s.app, *s.version = w.Namespace, w.App(), w.Version()
	*s.principal = cmp.Or(principal, mesh.Unknown)
	*s.cluster = cmp.Or(w.Cluster, mesh.DefaultCluster)
}

// setPeer fills in the other end; what is not known is "unknown", but a
// revision is "latest". The namespace of an authenticated peer is that of its
// identity.
func (s side) setPeer(w *mesh.Workload, principal string) {
	var none mesh.Workload
	if w == nil {
		w = &none
	} else {
		*s.cluster = cmp.Or(w.Cluster, mesh.DefaultCluster)
	}
	*s.workload = cmp.Or(w.Owner, mesh.Unknown)
	*s.canonical = cmp.Or(w.CanonicalName(), mesh.Unknown)
	*s.revision = w.CanonicalRevision()
	*s.namespace = cmp.Or(principalNamespace(principal), w.Namespace, mesh.Unknown)
	*s.app, *s.version = cmp.Or(w.App(), mesh.Unknown), cmp.Or(w.Version(), mesh.Unknown)
	*s.principal = cmp.Or(principal, mesh.Unknown)
	*s.cluster = cmp.Or(*s.cluster, mesh.Unknown)
}

// principalNamespace is the namespace in spiffe://domain/ns/NAMESPACE/sa/ACCOUNT, or "".
func principalNamespace(p string) string {
	_, rest, ok := strings.Cut(p, "/ns/")
	if !ok {
		return ""
	}
	ns, _, _ := strings.Cut(rest, "/")
	return ns
}

func firstDNSLabel(host string) string {
	name, _, _ := strings.Cut(host, ".")
	return name
}
