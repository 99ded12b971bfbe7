package envoy

// Listener is one place where connections arrive.
type Listener struct {
	Name               string
	Address            *Address
	FilterChains       []*FilterChain
	UseOriginalDst     *BoolValue
	Metadata           *Metadata
	ListenerFilters    []*ListenerFilter
	TrafficDirection   TrafficDirection
	DefaultFilterChain *FilterChain
	BindToPort         *BoolValue
}

// TrafficDirection is the side of the workload that a listener serves.
type TrafficDirection int32

// Traffic directions.
const (
	Inbound  TrafficDirection = 1
	Outbound TrafficDirection = 2
)

// FullName implements Message.
func (*Listener) FullName() string { return "envoy.config.listener.v3.Listener" }

func (l *Listener) visit(v *visitor) {
	v.str(1, "name", &l.Name)
	message(v, 2, "address", &l.Address)
	messages(v, 3, "filter_chains", &l.FilterChains)
	message(v, 4, "use_original_dst", &l.UseOriginalDst)
	message(v, 6, "metadata", &l.Metadata)
	messages(v, 9, "listener_filters", &l.ListenerFilters)
	enum(v, 16, "traffic_direction", &l.TrafficDirection, "UNSPECIFIED", "INBOUND", "OUTBOUND")
	message(v, 25, "default_filter_chain", &l.DefaultFilterChain)
	message(v, 26, "bind_to_port", &l.BindToPort)
}

// FilterChain is what happens to connections that match.
type FilterChain struct {
	Match   *FilterChainMatch
	Filters []*Filter
	Name    string
}

// FullName implements Message.
func (*FilterChain) FullName() string { return "envoy.config.listener.v3.FilterChain" }

func (c *FilterChain) visit(v *visitor) {
	message(v, 1, "filter_chain_match", &c.Match)
	messages(v, 3, "filters", &c.Filters)
	v.str(7, "name", &c.Name)
}

// FilterChainMatch picks connections by what listener filters found in their
// first bytes.
type FilterChainMatch struct {
	TransportProtocol    string // RawBuffer or "tls"; "" is any
	ApplicationProtocols []string
}

// RawBuffer is the TransportProtocol of what is not TLS.
const RawBuffer = "raw_buffer"

// FullName implements Message.
func (*FilterChainMatch) FullName() string { return "envoy.config.listener.v3.FilterChainMatch" }

func (m *FilterChainMatch) visit(v *visitor) {
	v.str(9, "transport_protocol", &m.TransportProtocol)
	v.strs(10, "application_protocols", &m.ApplicationProtocols)
}

// Filter is a network filter.
type Filter struct {
	Name        string
	TypedConfig Message
}

// FullName implements Message.
func (*Filter) FullName() string { return "envoy.config.listener.v3.Filter" }

func (f *Filter) visit(v *visitor) {
	v.str(1, "name", &f.Name)
	anyOf(v, 4, "typed_config", &f.TypedConfig)
}

// ListenerFilter looks at a connection before a filter chain is chosen.
type ListenerFilter struct {
	Name        string
	TypedConfig Message
}

// FullName implements Message.
func (*ListenerFilter) FullName() string { return "envoy.config.listener.v3.ListenerFilter" }

func (f *ListenerFilter) visit(v *visitor) {
	v.str(1, "name", &f.Name)
	anyOf(v, 3, "typed_config", &f.TypedConfig)
}

// ProxyProtocol reads the PROXY protocol header that connections begin with.
type ProxyProtocol struct{}

// FullName implements Message.
func (*ProxyProtocol) FullName() string {
	return "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"
}
func (*ProxyProtocol) visit(*visitor) {}

// TLSInspector finds TLS and its server name.
type TLSInspector struct{}

// FullName implements Message.
func (*TLSInspector) FullName() string {
	return "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
}
func (*TLSInspector) visit(*visitor) {}

// HTTPInspector finds HTTP.
type HTTPInspector struct{}

// FullName implements Message.
func (*HTTPInspector) FullName() string {
	return "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"
}
func (*HTTPInspector) visit(*visitor) {}

// HTTPConnectionManager handles HTTP connections, with routes from RDS or its own.
type HTTPConnectionManager struct {
	StatPrefix  string
	RDS         *RDS
	RouteConfig *RouteConfiguration
	HTTPFilters []*HTTPFilter
}

const hcm = "envoy.extensions.filters.network.http_connection_manager.v3."

// FullName implements Message.
func (*HTTPConnectionManager) FullName() string { return hcm + "HttpConnectionManager" }

func (m *HTTPConnectionManager) visit(v *visitor) {
	v.str(2, "stat_prefix", &m.StatPrefix)
	message(v, 3, "rds", &m.RDS)
	message(v, 4, "route_config", &m.RouteConfig)
	messages(v, 5, "http_filters", &m.HTTPFilters)
}

// RDS names a route configuration and where it comes from.
type RDS struct {
	ConfigSource    *ConfigSource
	RouteConfigName string
}

// FullName implements Message.
func (*RDS) FullName() string { return hcm + "Rds" }

func (r *RDS) visit(v *visitor) {
	message(v, 1, "config_source", &r.ConfigSource)
	v.str(2, "route_config_name", &r.RouteConfigName)
}

// HTTPFilter is one step of request handling.
type HTTPFilter struct {
	Name        string
	TypedConfig Message
}

// FullName implements Message.
func (*HTTPFilter) FullName() string { return hcm + "HttpFilter" }

func (f *HTTPFilter) visit(v *visitor) {
	v.str(1, "name", &f.Name)
	anyOf(v, 4, "typed_config", &f.TypedConfig)
}

// Router is the last HTTP filter: it forwards.
type Router struct{}

// FullName implements Message.
func (*Router) FullName() string { return "envoy.extensions.filters.http.router.v3.Router" }
func (*Router) visit(*visitor)   {}

// TCPProxy forwards connections to one cluster.
type TCPProxy struct {
	StatPrefix string
	Cluster    string
}

// FullName implements Message.
func (*TCPProxy) FullName() string { return "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" }

func (p *TCPProxy) visit(v *visitor) {
	v.str(1, "stat_prefix", &p.StatPrefix)
	v.str(2, "cluster", &p.Cluster)
}
