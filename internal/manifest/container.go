package manifest

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// programs counts what an annotation without a container's name could mean.
func (s *setObject) programs() int {
	return len(s.template.Spec.Containers) + len(s.template.Spec.InitContainers)
}

// container converts one container. names are those in use in the pod; probed
// is false for init containers, which have no probes.
func (s *setObject) container(c *corev1.Container, volumes map[string]volume, names map[string]bool, path string, probed bool) (mesh.Container, bool) {
	before := len(s.o.loader.diags)
	switch {
	case c.Name == "":
		s.o.problem(path, "the container has no name", "name it")
	case validation.IsDNS1123Label(c.Name) != nil:
		s.o.problem(path+".name", "the container name "+quoted(c.Name)+" is not allowed", remedyLabel)
	case names[c.Name]:
		s.o.problem(path+".name", "two containers of the pod are named "+quoted(c.Name), "rename one of them")
	}
	names[c.Name] = true
	env := s.o.environment(c, path)
	out := mesh.Container{Name: c.Name, Env: env.vars}
	out.Files, out.Dirs = s.mounts(c, volumes, path)
	out.Dir = s.workingDir(c, &out, path)
	out.Args = s.command(c, path, env)
	if len(out.Args) > 0 {
		at := path
		if len(c.Command) > 0 {
			at = path + ".command"
		}
		if _, where, ok := s.annotation(annotationCommand, c); ok {
			at = where
		}
		out.Args[0] = s.program(out.Args[0], &out, env, at)
	}
	s.ports(c, &out, path)
	s.mounted = append(s.mounted, mounted{c, path, out.Mounts()})
	if probed {
		out.Liveness = s.o.probe(c.LivenessProbe, c, env, "liveness", path+".livenessProbe")
		out.Readiness = s.o.probe(c.ReadinessProbe, c, env, "readiness", path+".readinessProbe")
		out.Startup = s.o.probe(c.StartupProbe, c, env, "startup", path+".startupProbe")
	} else if c.LivenessProbe != nil || c.ReadinessProbe != nil || c.StartupProbe != nil {
		s.o.problem(path, "init container "+c.Name+" has a probe, but it only runs to its end", "remove the probe")
	}
	if c.Lifecycle != nil {
		s.o.warn(path+".lifecycle", "lifecycle has no effect in this version: programs get SIGTERM at once", "nothing to do, unless you rely on it")
	}
	if len(c.VolumeDevices) > 0 {
		s.o.warn(path+".volumeDevices", "volumeDevices have no effect in this version", remedyWithout)
	}
	for _, d := range s.o.loader.diags[before:] {
		if !d.Warning {
			return out, false
		}
	}
	return out, true
}

// ports converts the declared ports of c. What a port speaks may be corrected
// later by the Service that targets it.
func (s *setObject) ports(c *corev1.Container, out *mesh.Container, path string) {
	names := map[string]bool{}
	for i := range c.Ports {
		p, at := &c.Ports[i], index(path+".ports", i)
		number := s.o.port(p.ContainerPort, at+".containerPort")
		if number == 0 {
			continue
		}
		transport, ok := s.o.transport(p.Protocol, at+".protocol")
		if !ok {
			continue
		}
		if p.Name != "" {
			if validation.IsValidPortName(p.Name) != nil {
				s.o.problem(at+".name", "the port name "+quoted(p.Name)+" is not allowed",
					"use at most 15 lower-case letters, digits and dashes, with a letter among them")
			}
			if names[p.Name] {
				s.o.problem(at+".name", "two ports are named "+quoted(p.Name), "rename one of them")
			}
			names[p.Name] = true
		}
		if p.HostPort != 0 {
			s.o.warn(at+".hostPort", "hostPort has no effect in this version", "open the port by a Service of type NodePort or LoadBalancer")
		}
		out.Ports = append(out.Ports, mesh.ContainerPort{
			Name: p.Name, Port: number, Protocol: mesh.ProtocolFromPort("", p.Name, transport, number),
		})
	}
}

func (o *object) transport(p corev1.Protocol, path string) (string, bool) {
	switch p {
	case "", corev1.ProtocolTCP:
		return "TCP", true
	case corev1.ProtocolUDP:
		return "UDP", true
	case corev1.ProtocolSCTP:
		o.problem(path, "SCTP is not supported", "use TCP or UDP")
	default:
		o.problem(path, "the transport protocol "+quoted(string(p))+" is not known", "write TCP or UDP")
	}
	return "", false
}

// checkPorts reports ports that two programs of a replica would both listen
// on: the containers of a pod share one network. Init containers that run to
// their end are gone when the others start.
func (s *setObject) checkPorts() {
	type key struct {
		port uint16
		udp  bool
	}
	owner := map[key]string{}
	check := func(c *corev1.Container, path string) {
		for pi, p := range c.Ports {
			k := key{uint16(p.ContainerPort), p.Protocol == corev1.ProtocolUDP}
			at := index(path+".ports", pi) + ".containerPort"
			switch other, taken := owner[k]; {
			case !taken:
				owner[k] = c.Name
			case other == c.Name:
				s.o.problem(at, fmt.Sprintf("port %d is listed twice", k.port), "remove one of them")
			default:
				s.o.problem(at, fmt.Sprintf("containers %s and %s of one pod both use port %d", other, c.Name, k.port),
					"let one of them listen on another port")
			}
		}
	}
	spec := &s.template.Spec
	for i := range spec.InitContainers {
		if goesOn(&spec.InitContainers[i]) {
			check(&spec.InitContainers[i], index(s.path+".spec.initContainers", i))
		}
	}
	for i := range spec.Containers {
		check(&spec.Containers[i], index(s.path+".spec.containers", i))
	}
}

// checkWirePorts bounds the TCP ports of a replica, with those that only Services
// name.
func (s *setObject) checkWirePorts() {
	numbers := map[uint16]bool{}
	for i := range s.set.Containers {
		for _, p := range s.set.Containers[i].Ports {
			if p.Protocol != mesh.ProtocolUDP {
				numbers[p.Port] = true
			}
		}
	}
	if len(numbers) > mesh.MaxWirePorts {
		s.o.problem(s.path+".spec.containers", fmt.Sprintf("the pod has %d TCP ports with those that Services target, at most %d are supported",
			len(numbers), mesh.MaxWirePorts), "declare or target fewer")
	}
}

// goesOn reports whether an init container runs beside the others until the end
// of the pod.
func goesOn(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// matches reports whether a Service's selector finds the replicas of s.
func (s *setObject) matches(namespace string, selector map[string]string) bool {
	replica := mesh.Workload{Labels: s.set.Labels}
	return s.set.Namespace == namespace && replica.Matches(selector)
}

// portNamed finds a declared port by name.
func (s *setObject) portNamed(name string) (*mesh.ContainerPort, bool) {
	for ci := range s.set.Containers {
		for pi := range s.set.Containers[ci].Ports {
			if p := &s.set.Containers[ci].Ports[pi]; p.Name == name {
				return p, true
			}
		}
	}
	return nil, false
}

// portNumbered finds a declared port by number and transport.
func (s *setObject) portNumbered(n uint16, udp bool) (*mesh.ContainerPort, bool) {
	for ci := range s.set.Containers {
		for pi := range s.set.Containers[ci].Ports {
			if p := &s.set.Containers[ci].Ports[pi]; p.Port == n && (p.Protocol == mesh.ProtocolUDP) == udp {
				return p, true
			}
		}
	}
	return nil, false
}
