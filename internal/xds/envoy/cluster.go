package envoy

// DiscoveryType says where a cluster's endpoints come from.
type DiscoveryType int32

// Discovery types in use.
const (
	Static       DiscoveryType = 0
	EDS          DiscoveryType = 3
	OriginalDest DiscoveryType = 4
)

// LbPolicy is the way in which an endpoint is chosen.
type LbPolicy int32

// Policies in use.
const (
	LeastRequest    LbPolicy = 1
	ClusterProvided LbPolicy = 6
)

// Cluster is a set of endpoints that serve the same thing.
type Cluster struct {
	Name                          string
	Type                          *DiscoveryType
	EDSClusterConfig              *EDSClusterConfig
	ConnectTimeout                *Duration
	LbPolicy                      LbPolicy
	Metadata                      *Metadata
	LoadAssignment                *ClusterLoadAssignment
	TypedExtensionProtocolOptions map[string]Message
}

// FullName implements Message.
func (*Cluster) FullName() string { return "envoy.config.cluster.v3.Cluster" }

func (c *Cluster) visit(v *visitor) {
	v.str(1, "name", &c.Name)
	optEnum(v, 2, "type", &c.Type, "STATIC", "STRICT_DNS", "LOGICAL_DNS", "EDS", "ORIGINAL_DST")
	message(v, 3, "eds_cluster_config", &c.EDSClusterConfig)
	message(v, 4, "connect_timeout", &c.ConnectTimeout)
	enum(v, 6, "lb_policy", &c.LbPolicy, "ROUND_ROBIN", "LEAST_REQUEST", "RING_HASH", "RANDOM", "", "MAGLEV", "CLUSTER_PROVIDED")
	message(v, 25, "metadata", &c.Metadata)
	message(v, 33, "load_assignment", &c.LoadAssignment)
	anyMap(v, 36, "typed_extension_protocol_options", &c.TypedExtensionProtocolOptions)
}

// EDSClusterConfig names the endpoints of a cluster.
type EDSClusterConfig struct {
	EDSConfig   *ConfigSource
	ServiceName string
}

// FullName implements Message.
func (*EDSClusterConfig) FullName() string { return "envoy.config.cluster.v3.Cluster.EdsClusterConfig" }

func (c *EDSClusterConfig) visit(v *visitor) {
	message(v, 1, "eds_config", &c.EDSConfig)
	v.str(2, "service_name", &c.ServiceName)
}

const upstreamsHTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// HTTPProtocolOptions says which HTTP version is spoken to the endpoints.
type HTTPProtocolOptions struct{ UseDownstreamProtocol *UseDownstreamHTTPConfig }

// FullName implements Message.
func (*HTTPProtocolOptions) FullName() string { return upstreamsHTTP }

func (o *HTTPProtocolOptions) visit(v *visitor) {
	message(v, 4, "use_downstream_protocol_config", &o.UseDownstreamProtocol)
}

// UseDownstreamHTTPConfig asks for the version that the client spoke.
type UseDownstreamHTTPConfig struct {
	HTTP1 *HTTP1Options
	HTTP2 *HTTP2Options
}

// FullName implements Message.
func (*UseDownstreamHTTPConfig) FullName() string { return upstreamsHTTP + ".UseDownstreamHttpConfig" }

func (c *UseDownstreamHTTPConfig) visit(v *visitor) {
	message(v, 1, "http_protocol_options", &c.HTTP1)
	message(v, 2, "http2_protocol_options", &c.HTTP2)
}

// HTTP1Options stands for HTTP/1 with default settings.
type HTTP1Options struct{}

// FullName implements Message.
func (*HTTP1Options) FullName() string { return "envoy.config.core.v3.Http1ProtocolOptions" }
func (*HTTP1Options) visit(*visitor)   {}

// HTTP2Options stands for HTTP/2 with default settings.
type HTTP2Options struct{}

// FullName implements Message.
func (*HTTP2Options) FullName() string { return "envoy.config.core.v3.Http2ProtocolOptions" }
func (*HTTP2Options) visit(*visitor)   {}

// ClusterLoadAssignment holds the endpoints of a cluster.
type ClusterLoadAssignment struct {
	ClusterName string
	Endpoints   []*LocalityLbEndpoints
}

const endpointV3 = "envoy.config.endpoint.v3."

// FullName implements Message.
func (*ClusterLoadAssignment) FullName() string { return endpointV3 + "ClusterLoadAssignment" }

func (a *ClusterLoadAssignment) visit(v *visitor) {
	v.str(1, "cluster_name", &a.ClusterName)
	messages(v, 2, "endpoints", &a.Endpoints)
}

// LocalityLbEndpoints are the endpoints of one place.
type LocalityLbEndpoints struct{ LbEndpoints []*LbEndpoint }

// FullName implements Message.
func (*LocalityLbEndpoints) FullName() string { return endpointV3 + "LocalityLbEndpoints" }

func (e *LocalityLbEndpoints) visit(v *visitor) {
	messages(v, 2, "lb_endpoints", &e.LbEndpoints)
}

// LbEndpoint is one endpoint and its share.
type LbEndpoint struct {
	Endpoint *Endpoint
	Metadata *Metadata
	Weight   *UInt32Value
}

// FullName implements Message.
func (*LbEndpoint) FullName() string { return endpointV3 + "LbEndpoint" }

func (e *LbEndpoint) visit(v *visitor) {
	message(v, 1, "endpoint", &e.Endpoint)
	message(v, 3, "metadata", &e.Metadata)
	message(v, 4, "load_balancing_weight", &e.Weight)
}

// Endpoint is one address.
type Endpoint struct{ Address *Address }

// FullName implements Message.
func (*Endpoint) FullName() string { return endpointV3 + "Endpoint" }

func (e *Endpoint) visit(v *visitor) {
	message(v, 1, "address", &e.Address)
}
