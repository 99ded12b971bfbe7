package manifest

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// Kubernetes' defaults of a probe.
const (
	defaultProbePeriod   = 10
	defaultProbeTimeout  = 1
	defaultProbeSuccess  = 1
	defaultProbeFailures = 3
)

// probe converts a probe of container c with Kubernetes' defaults; nil stays
// nil. role is liveness, readiness or startup.
func (o *object) probe(p *corev1.Probe, c *corev1.Container, env *environment, role, path string) *mesh.Probe {
	if p == nil {
		return nil
	}
	out := &mesh.Probe{
		InitialDelay:     o.seconds(p.InitialDelaySeconds, 0, 0, path+".initialDelaySeconds"),
		Period:           o.seconds(p.PeriodSeconds, defaultProbePeriod, 1, path+".periodSeconds"),
		Timeout:          o.seconds(p.TimeoutSeconds, defaultProbeTimeout, 1, path+".timeoutSeconds"),
		SuccessThreshold: int(o.count(p.SuccessThreshold, defaultProbeSuccess, path+".successThreshold")),
		FailureThreshold: int(o.count(p.FailureThreshold, defaultProbeFailures, path+".failureThreshold")),
	}
	if role != "readiness" && out.SuccessThreshold != 1 {
		o.problem(path+".successThreshold", "successThreshold of a "+role+" probe must be 1", "remove the field")
	}
	if p.TerminationGracePeriodSeconds != nil {
		o.warn(path+".terminationGracePeriodSeconds", "terminationGracePeriodSeconds of a probe has no effect: that of the pod counts", remedyWithout)
	}
	handlers := 0
	if h := p.HTTPGet; h != nil {
		handlers++
		out.HTTP = o.httpProbe(h, c, path+".httpGet")
	}
	if h := p.TCPSocket; h != nil {
		handlers++
		out.TCP = &mesh.TCPProbe{Port: o.probePort(h.Port, c, path+".tcpSocket.port")}
		if h.Host != "" {
			o.warn(path+".tcpSocket.host", "host of a tcpSocket probe has no effect: the program itself is asked", "remove the field")
		}
	}
	if h := p.GRPC; h != nil {
		handlers++
		out.GRPC = &mesh.GRPCProbe{Port: o.port(h.Port, path+".grpc.port")}
		if h.Service != nil {
			out.GRPC.Service = *h.Service
		}
	}
	if h := p.Exec; h != nil {
		handlers++
		out.Exec = env.expandAll(h.Command)
		if len(h.Command) == 0 {
			o.problem(path+".exec", "the exec probe has no command", "write command")
		}
	}
	if handlers != 1 {
		o.problem(path, "a "+role+" probe needs exactly one of httpGet, tcpSocket, grpc and exec", "write one of them")
		return nil
	}
	return out
}

func (o *object) httpProbe(h *corev1.HTTPGetAction, c *corev1.Container, path string) *mesh.HTTPProbe {
	out := &mesh.HTTPProbe{
		Port: o.probePort(h.Port, c, path+".port"), Path: h.Path, Scheme: string(h.Scheme), Host: h.Host,
	}
	if out.Path == "" {
		out.Path = "/"
	}
	switch out.Scheme {
	case "":
		out.Scheme = string(corev1.URISchemeHTTP)
	case string(corev1.URISchemeHTTP), string(corev1.URISchemeHTTPS):
	default:
		o.problem(path+".scheme", "the scheme "+quoted(out.Scheme)+" is not known", "write HTTP or HTTPS")
	}
	for _, header := range h.HTTPHeaders {
		out.Headers = append(out.Headers, mesh.EnvVar{Name: header.Name, Value: header.Value})
	}
	return out
}

// probePort resolves a port number or the name of a port of c.
func (o *object) probePort(p intstr.IntOrString, c *corev1.Container, path string) uint16 {
	if p.Type == intstr.Int {
		return o.port(p.IntVal, path)
	}
	names := map[string]bool{}
	for _, port := range c.Ports {
		if port.Name == p.StrVal {
			return uint16(port.ContainerPort) // its range is checked where it is declared
		}
		names[port.Name] = true
	}
	remedy := "name a port of the container or write its number"
	if near := nearest(p.StrVal, names); near != "" {
		remedy = "did you mean " + near + "?"
	}
	o.problem(path, "container "+c.Name+" has no port named "+quoted(p.StrVal), remedy)
	return 0
}

// port checks a port number's range.
func (o *object) port(n int32, path string) uint16 {
	if n < 1 || n > 65535 {
		o.problem(path, "a port must be between 1 and 65535", "correct the number")
		return 0
	}
	return uint16(n)
}

// seconds is n, or def if n is 0; below least is an error.
func (o *object) seconds(n, def, least int32, path string) time.Duration {
	if n == 0 {
		n = def
	}
	if n < least {
		o.problem(path, "the number of seconds must not be negative", "correct the number")
	}
	return time.Duration(n) * time.Second
}

func (o *object) count(n, def int32, path string) int32 {
	if n == 0 {
		n = def
	}
	if n < 1 {
		o.problem(path, "the number must not be negative", "correct the number")
	}
	return n
}
