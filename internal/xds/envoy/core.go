package envoy

// Address is where something listens or is reached.
type Address struct{ SocketAddress *SocketAddress }

// FullName implements Message.
func (*Address) FullName() string { return "envoy.config.core.v3.Address" }

func (a *Address) visit(v *visitor) {
	message(v, 1, "socket_address", &a.SocketAddress)
}

// SocketAddress is an IP address with a TCP port.
type SocketAddress struct {
	Address   string
	PortValue *uint32
}

// FullName implements Message.
func (*SocketAddress) FullName() string { return "envoy.config.core.v3.SocketAddress" }

func (a *SocketAddress) visit(v *visitor) {
	v.str(2, "address", &a.Address)
	v.optUint32(3, "port_value", &a.PortValue)
}

// Metadata is additional information for filters, by the filter's name.
type Metadata struct{ FilterMetadata map[string]*Struct }

// FullName implements Message.
func (*Metadata) FullName() string { return "envoy.config.core.v3.Metadata" }

func (m *Metadata) visit(v *visitor) {
	messageMap(v, 1, "filter_metadata", &m.FilterMetadata)
}

// APIVersion is the version of the xDS resources that are asked for.
type APIVersion int32

// V3 is the only version in use.
const V3 APIVersion = 2

// ConfigSource says where a resource comes from.
type ConfigSource struct {
	ADS                *AggregatedConfigSource
	ResourceAPIVersion APIVersion
}

// FullName implements Message.
func (*ConfigSource) FullName() string { return "envoy.config.core.v3.ConfigSource" }

func (s *ConfigSource) visit(v *visitor) {
	message(v, 3, "ads", &s.ADS)
	enum(v, 6, "resource_api_version", &s.ResourceAPIVersion, "AUTO", "V2", "V3")
}

// OverADS is the source of everything that comes over the same ADS stream.
func OverADS() *ConfigSource {
	return &ConfigSource{ADS: &AggregatedConfigSource{}, ResourceAPIVersion: V3}
}

// AggregatedConfigSource names the ADS stream.
type AggregatedConfigSource struct{}

// FullName implements Message.
func (*AggregatedConfigSource) FullName() string {
	return "envoy.config.core.v3.AggregatedConfigSource"
}
func (*AggregatedConfigSource) visit(*visitor) {}

// Node identifies a proxy.
type Node struct {
	ID       string
	Metadata *Struct
}

// FullName implements Message.
func (*Node) FullName() string { return "envoy.config.core.v3.Node" }

func (n *Node) visit(v *visitor) {
	v.str(1, "id", &n.ID)
	message(v, 3, "metadata", &n.Metadata)
}

// known makes an empty message of each type that may stand in an Any; nil for
// others.
func known(fullName string) Message {
	switch fullName {
	case (*Listener)(nil).FullName():
		return &Listener{}
	case (*RouteConfiguration)(nil).FullName():
		return &RouteConfiguration{}
	case (*Cluster)(nil).FullName():
		return &Cluster{}
	case (*ClusterLoadAssignment)(nil).FullName():
		return &ClusterLoadAssignment{}
	case (*Workload)(nil).FullName():
		return &Workload{}
	case (*NameTable)(nil).FullName():
		return &NameTable{}
	case (*HTTPConnectionManager)(nil).FullName():
		return &HTTPConnectionManager{}
	case (*TCPProxy)(nil).FullName():
		return &TCPProxy{}
	case (*Router)(nil).FullName():
		return &Router{}
	case (*ProxyProtocol)(nil).FullName():
		return &ProxyProtocol{}
	case (*TLSInspector)(nil).FullName():
		return &TLSInspector{}
	case (*HTTPInspector)(nil).FullName():
		return &HTTPInspector{}
	case (*HTTPProtocolOptions)(nil).FullName():
		return &HTTPProtocolOptions{}
	case (*VitrineWorkload)(nil).FullName():
		return &VitrineWorkload{}
	}
	return nil
}
