package mesh

import "strings"

// Protocol is what a service port is declared to speak.
type Protocol uint8

// The protocols a port can be declared with. ProtocolAuto (the zero value)
// means that nothing was declared and the first bytes decide.
const (
	ProtocolAuto Protocol = iota
	ProtocolHTTP          // HTTP/1 or HTTP/2, told apart by the first bytes
	ProtocolHTTP2
	ProtocolGRPC
	ProtocolTCP // opaque; never sniffed
	ProtocolTLS // passed through; SNI is read
	ProtocolUDP
)

// String is the name used in port-name prefixes and on screen.
func (p Protocol) String() string {
	switch p {
	case ProtocolAuto:
		return "auto"
	case ProtocolHTTP:
		return "http"
	case ProtocolHTTP2:
		return "http2"
	case ProtocolGRPC:
		return "grpc"
	case ProtocolTCP:
		return "tcp"
	case ProtocolTLS:
		return "tls"
	case ProtocolUDP:
		return "udp"
	}
	return "unknown"
}

// IsHTTP reports whether requests of this protocol are counted one by one.
func (p Protocol) IsHTTP() bool {
	return p == ProtocolHTTP || p == ProtocolHTTP2 || p == ProtocolGRPC
}

// ProtocolFromPort applies Istio's explicit protocol selection: appProtocol
// first, then the port name up to its first dash
// (istio pkg/config/kube/conversion.go). Transport "UDP" always wins.
// An unknown name yields ProtocolAuto; a well-known server-first or opaque port
// number (isOpaquePort) yields ProtocolTCP.
func ProtocolFromPort(appProtocol, portName, transport string, port uint16) Protocol {
	if strings.EqualFold(transport, "UDP") {
		return ProtocolUDP
	}
	if p, ok := protocolByName(appProtocol); ok {
		return p
	}
	prefix, _, _ := strings.Cut(portName, "-")
	if p, ok := protocolByName(prefix); ok {
		return p
	}
	if isOpaquePort(port) {
		return ProtocolTCP
	}
	return ProtocolAuto
}

func protocolByName(name string) (Protocol, bool) {
	switch strings.ToLower(name) {
	case "http", "kubernetes.io/ws", "http-proxy":
		return ProtocolHTTP, true
	case "http2", "kubernetes.io/h2c", "h2c":
		return ProtocolHTTP2, true
	case "grpc", "grpc-web":
		return ProtocolGRPC, true
	case "tcp", "mongo", "mysql", "redis", "postgres", "postgresql", "amqp", "kafka", "memcached", "cassandra":
		return ProtocolTCP, true
	case "tls", "https", "kubernetes.io/wss":
		return ProtocolTLS, true
	case "udp":
		return ProtocolUDP, true
	}
	return ProtocolAuto, false
}

// isOpaquePort lists ports whose protocols speak server-first or must never be
// sniffed: Istio's well-known ports, Linkerd's default opaque ports, and
// server-first protocols (reference/interception.md section 9).
func isOpaquePort(port uint16) bool {
	switch port {
	case 21, 22, 25, 53, 110, 143, 587, 3306, 4222, 4444, 5432, 6379, 9300, 11211, 27017:
		return true
	}
	return false
}
