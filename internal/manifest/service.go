package manifest

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// Kubernetes' default range of node ports; the API server refuses others.
const (
	nodePortFirst = 30000
	nodePortCount = 2768
)

// transportPort is a port number of one of the two transports, whose numbers are
// independent of each other.
type transportPort struct {
	number uint16
	udp    bool
}

// publication is a Service port that is to be open on the host.
type publication struct {
	o    *object
	port *mesh.ServicePort
	host uint16 // 0: any node port
	path string
}

// convertServices makes a mesh.Service of each Service and tells the workload
// ports what they speak.
func (l *loader) convertServices() {
	var services []*object
	for _, o := range l.found {
		if o.kind == kindService {
			services = append(services, o)
		}
	}
	slices.SortStableFunc(services, func(a, b *object) int {
		return strings.Compare(serviceHost(a.name, a.namespace), serviceHost(b.name, b.namespace))
	})
	l.objects.Services = make([]mesh.Service, 0, len(services))
	var pubs []publication
	for _, o := range services {
		spec, ok := o.value.(*corev1.Service)
		if !ok {
			continue
		}
		if svc, p, ok := o.service(&spec.Spec); ok {
			l.objects.Services = append(l.objects.Services, svc)
			pubs = append(pubs, p...)
		}
	}
	publish(pubs)
}

func serviceHost(name, namespace string) string {
	return name + "." + namespace + ".svc." + mesh.DefaultDomain
}

func (o *object) service(spec *corev1.ServiceSpec) (mesh.Service, []publication, bool) {
	svc := mesh.Service{
		ServiceRef: mesh.ServiceRef{Host: serviceHost(o.name, o.namespace), Name: o.name, Namespace: o.namespace},
		Headless:   spec.ClusterIP == corev1.ClusterIPNone,
		Selector:   spec.Selector,

		PublishNotReady: spec.PublishNotReadyAddresses,
	}
	published := false
	switch spec.Type {
	case "", corev1.ServiceTypeClusterIP:
	case corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		published = true
		if svc.Headless {
			o.problem("spec.clusterIP", "a headless Service cannot be of type "+string(spec.Type), "remove clusterIP or type")
		}
	case corev1.ServiceTypeExternalName:
		o.warn("spec.type", "type ExternalName is not supported in this version: the mesh does not know the name",
			"let the programs call "+spec.ExternalName+" itself")
		return svc, nil, false
	default:
		o.problem("spec.type", "the type "+quoted(string(spec.Type))+" is not known", "write ClusterIP, NodePort or LoadBalancer")
	}
	if len(spec.Ports) == 0 && !svc.Headless {
		o.problem("spec", "the Service has no ports", "write at least one")
	}
	o.serviceWarnings(spec)
	o.checkLabels("spec.selector", spec.Selector)
	targets := o.targets(spec)
	svc.Ports = make([]mesh.ServicePort, len(spec.Ports))
	var pubs []publication
	for i := range spec.Ports {
		at := index("spec.ports", i)
		o.servicePort(&svc.Ports[i], spec.Ports, i, targets)
		if svc.Ports[i].Protocol == mesh.ProtocolUDP {
			o.warn(at, "a UDP port cannot be reached in this version: datagrams to it are refused",
				"use TCP, or run the server outside of the mesh, on a host address that programs are given")
			continue
		}
		if !published {
			continue
		}
		pub := publication{o: o, port: &svc.Ports[i], path: at}
		switch {
		case spec.Type == corev1.ServiceTypeLoadBalancer:
			pub.host, pub.path = svc.Ports[i].Port, at+".port"
			if spec.Ports[i].NodePort != 0 {
				o.warn(at+".nodePort", "nodePort of a LoadBalancer has no effect here: its port is opened as it is", "use port "+strconv.Itoa(int(svc.Ports[i].Port)))
			}
		case spec.Ports[i].NodePort != 0:
			pub.host, pub.path = o.nodePort(spec.Ports[i].NodePort, at+".nodePort"), at+".nodePort"
		}
		pubs = append(pubs, pub)
	}
	return svc, pubs, true
}

// serviceWarnings names fields that say something in a cluster and nothing here.
func (o *object) serviceWarnings(spec *corev1.ServiceSpec) {
	const remedy = "nothing to do, unless you rely on it"
	if spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		o.warn("spec.sessionAffinity", "sessionAffinity has no effect in this version", remedy)
	}
	if spec.ClusterIP != "" && spec.ClusterIP != corev1.ClusterIPNone {
		o.warn("spec.clusterIP", "a chosen clusterIP has no effect: the mesh gives the Service a virtual address of its own",
			"let the programs use the name")
	}
	for field, used := range map[string]bool{
		"internalTrafficPolicy":    spec.InternalTrafficPolicy != nil && *spec.InternalTrafficPolicy != corev1.ServiceInternalTrafficPolicyCluster,
		"loadBalancerIP":           spec.LoadBalancerIP != "",
		"loadBalancerSourceRanges": len(spec.LoadBalancerSourceRanges) > 0,
	} {
		if used {
			o.warn("spec."+field, field+" has no effect in this version", remedy)
		}
	}
	if len(spec.ExternalIPs) > 0 {
		o.warn("spec.externalIPs", "externalIPs have no effect in this version", "let the programs use the name")
	}
}

// nodePort checks a chosen node port; 0 is one that cannot be used.
func (o *object) nodePort(n int32, path string) uint16 {
	if n < nodePortFirst || n >= nodePortFirst+nodePortCount {
		o.problem(path, fmt.Sprintf("a nodePort must be between %d and %d", nodePortFirst, nodePortFirst+nodePortCount-1),
			"choose one of these, remove it, or make the Service a LoadBalancer, which opens its port as it is")
		return 0
	}
	return uint16(n)
}

// targets are the sets whose replicas the Service finds.
func (o *object) targets(spec *corev1.ServiceSpec) []*setObject {
	if len(spec.Selector) == 0 {
		o.warn("spec", "the Service has no selector, so it has no endpoints", "write selector with labels of a pod template")
		return nil
	}
	var targets []*setObject
	for _, s := range o.loader.sets {
		if s.matches(o.namespace, spec.Selector) {
			targets = append(targets, s)
		}
	}
	if len(targets) == 0 {
		o.warn("spec.selector", "the selector matches no pod template in namespace "+o.namespace,
			"compare it with the labels of the templates, or start the programs by vitrine run")
	}
	return targets
}

// servicePort converts port i and declares it at the workloads.
func (o *object) servicePort(out *mesh.ServicePort, ports []corev1.ServicePort, i int, targets []*setObject) {
	p, at := &ports[i], index("spec.ports", i)
	transport, ok := o.transport(p.Protocol, at+".protocol")
	if !ok {
		return
	}
	out.Name, out.Port = p.Name, o.port(p.Port, at+".port")
	appProtocol := ""
	if p.AppProtocol != nil {
		appProtocol = *p.AppProtocol
	}
	out.Protocol = mesh.ProtocolFromPort(appProtocol, p.Name, transport, out.Port)
	switch {
	case p.Name == "" && len(ports) > 1:
		o.problem(at, "a Service with several ports needs a name for each", "write name")
	case p.Name != "" && validation.IsDNS1123Label(p.Name) != nil:
		o.problem(at+".name", "the port name "+quoted(p.Name)+" is not allowed", remedyLabel)
	}
	for j := range i {
		if p.Name != "" && ports[j].Name == p.Name {
			o.problem(at+".name", "two ports are named "+quoted(p.Name), "rename one of them")
		}
		if ports[j].Port == p.Port && (ports[j].Protocol == corev1.ProtocolUDP) == (transport == "UDP") {
			o.problem(at+".port", fmt.Sprintf("port %d is listed twice", p.Port), "remove one of them")
		}
	}
	switch {
	case p.TargetPort.Type == intstr.String && p.TargetPort.StrVal != "":
		out.TargetName = p.TargetPort.StrVal
		o.namedTarget(out, targets, at+".targetPort")
		return
	case p.TargetPort.IntVal != 0:
		out.TargetPort = o.port(p.TargetPort.IntVal, at+".targetPort")
	default:
		out.TargetPort = out.Port
	}
	if out.TargetPort == 0 {
		return
	}
	for _, s := range targets {
		port, ok := s.portNumbered(out.TargetPort, out.Protocol == mesh.ProtocolUDP)
		if !ok && len(s.set.Containers) > 0 {
			// Kubernetes does not ask for a port to be declared.
			c := &s.set.Containers[0]
			c.Ports = append(c.Ports, mesh.ContainerPort{Port: out.TargetPort, Targeted: true})
			port = &c.Ports[len(c.Ports)-1]
		}
		o.speaks(port, out, s, at)
	}
}

// namedTarget finds the named port at each workload.
func (o *object) namedTarget(out *mesh.ServicePort, targets []*setObject, at string) {
	names, found := map[string]bool{}, false
	for _, s := range targets {
		for ci := range s.set.Containers {
			for _, p := range s.set.Containers[ci].Ports {
				names[p.Name] = true
			}
		}
		if port, ok := s.portNamed(out.TargetName); ok {
			found = true
			o.speaks(port, out, s, at)
		}
	}
	// A set that could not be converted was reported already, with its ports.
	broken := slices.ContainsFunc(targets, func(s *setObject) bool { return len(s.set.Containers) < len(s.template.Spec.Containers) })
	if found || broken || len(targets) == 0 {
		return
	}
	remedy := "name a port of the container, or write its number"
	if near := nearest(out.TargetName, names); near != "" {
		remedy = "did you mean " + near + "?"
	}
	o.problem(at, "no container that the Service selects has a port named "+quoted(out.TargetName), remedy)
}

// speaks gives a workload's port the protocol of the Service that targets it.
func (o *object) speaks(port *mesh.ContainerPort, out *mesh.ServicePort, s *setObject, at string) {
	if port == nil || out.Protocol == mesh.ProtocolAuto || port.Protocol == out.Protocol {
		return
	}
	number := transportPort{port.Port, out.Protocol == mesh.ProtocolUDP}
	if other := s.declared[number]; other != nil {
		o.warn(at, fmt.Sprintf("port %d of %s is said to speak %s here and %s at %s", port.Port, s.set.Name, out.Protocol, port.Protocol, other.where()),
			"give the Service ports the same protocol")
		return
	}
	if given := port.Protocol; !port.Targeted {
		port.Given = &given
	}
	port.Protocol = out.Protocol
	s.declared[number] = o
}

// publish gives every published port its address on the host. Ports that were
// not chosen follow from the Service's name alone, unless they collide.
func publish(pubs []publication) {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	owner := map[uint16]*object{}
	for _, p := range pubs {
		if p.host == 0 {
			continue
		}
		if other := owner[p.host]; other != nil {
			p.o.problem(p.path, fmt.Sprintf("127.0.0.1:%d is already published by Service/%s at %s", p.host, other.name, other.where()),
				"choose another port for one of the two")
			continue
		}
		owner[p.host] = p.o
		p.port.Publish = []netip.AddrPort{netip.AddrPortFrom(loopback, p.host)}
	}
	for _, p := range pubs {
		if p.host != 0 || strings.HasSuffix(p.path, ".nodePort") {
			continue
		}
		hash := fnv.New32a()
		fmt.Fprintf(hash, "%s/%s/%d", p.o.namespace, p.o.name, p.port.Port)
		for i := range uint32(nodePortCount) {
			host := uint16(nodePortFirst + (hash.Sum32()+i)%nodePortCount)
			if owner[host] == nil {
				owner[host] = p.o
				p.port.Publish = []netip.AddrPort{netip.AddrPortFrom(loopback, host)}
				break
			}
		}
	}
}
