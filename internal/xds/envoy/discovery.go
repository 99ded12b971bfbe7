package envoy

const discoveryV3 = "envoy.service.discovery.v3."

// Paths of the two ADS methods.
const (
	ADSService   = discoveryV3 + "AggregatedDiscoveryService"
	MethodStream = "StreamAggregatedResources"
	MethodDelta  = "DeltaAggregatedResources"
)

// DiscoveryRequest asks for resources, state of the world.
type DiscoveryRequest struct {
	VersionInfo   string
	Node          *Node
	ResourceNames []string
	TypeURL       string
	ResponseNonce string
	ErrorDetail   *Status
}

// FullName implements Message.
func (*DiscoveryRequest) FullName() string { return discoveryV3 + "DiscoveryRequest" }

func (r *DiscoveryRequest) visit(v *visitor) {
	v.str(1, "version_info", &r.VersionInfo)
	message(v, 2, "node", &r.Node)
	v.strs(3, "resource_names", &r.ResourceNames)
	v.str(4, "type_url", &r.TypeURL)
	v.str(5, "response_nonce", &r.ResponseNonce)
	message(v, 6, "error_detail", &r.ErrorDetail)
}

// DiscoveryResponse carries all resources of a type.
type DiscoveryResponse struct {
	VersionInfo string
	Resources   []*Any
	TypeURL     string
	Nonce       string
}

// FullName implements Message.
func (*DiscoveryResponse) FullName() string { return discoveryV3 + "DiscoveryResponse" }

func (r *DiscoveryResponse) visit(v *visitor) {
	v.str(1, "version_info", &r.VersionInfo)
	messages(v, 2, "resources", &r.Resources)
	v.str(4, "type_url", &r.TypeURL)
	v.str(5, "nonce", &r.Nonce)
}

// DeltaDiscoveryRequest subscribes, acknowledges or refuses, incrementally.
type DeltaDiscoveryRequest struct {
	Node                    *Node
	TypeURL                 string
	Subscribe               []string
	Unsubscribe             []string
	InitialResourceVersions map[string]string
	ResponseNonce           string
	ErrorDetail             *Status
}

// FullName implements Message.
func (*DeltaDiscoveryRequest) FullName() string { return discoveryV3 + "DeltaDiscoveryRequest" }

func (r *DeltaDiscoveryRequest) visit(v *visitor) {
	message(v, 1, "node", &r.Node)
	v.str(2, "type_url", &r.TypeURL)
	v.strs(3, "resource_names_subscribe", &r.Subscribe)
	v.strs(4, "resource_names_unsubscribe", &r.Unsubscribe)
	stringMap(v, 5, "initial_resource_versions", &r.InitialResourceVersions)
	v.str(6, "response_nonce", &r.ResponseNonce)
	message(v, 7, "error_detail", &r.ErrorDetail)
}

// DeltaDiscoveryResponse carries the resources of a type that changed.
type DeltaDiscoveryResponse struct {
	SystemVersionInfo string
	Resources         []*Resource
	TypeURL           string
	Nonce             string
	RemovedResources  []string
}

// FullName implements Message.
func (*DeltaDiscoveryResponse) FullName() string { return discoveryV3 + "DeltaDiscoveryResponse" }

func (r *DeltaDiscoveryResponse) visit(v *visitor) {
	v.str(1, "system_version_info", &r.SystemVersionInfo)
	messages(v, 2, "resources", &r.Resources)
	v.str(4, "type_url", &r.TypeURL)
	v.str(5, "nonce", &r.Nonce)
	v.strs(6, "removed_resources", &r.RemovedResources)
}

// Resource is one resource with its name and version.
type Resource struct {
	Version  string
	Resource *Any
	Name     string
}

// FullName implements Message.
func (*Resource) FullName() string { return discoveryV3 + "Resource" }

func (r *Resource) visit(v *visitor) {
	v.str(1, "version", &r.Version)
	message(v, 2, "resource", &r.Resource)
	v.str(3, "name", &r.Name)
}

// Status is a gRPC status, as error detail.
type Status struct {
	Code    int32
	Message string
}

// FullName implements Message.
func (*Status) FullName() string { return "google.rpc.Status" }

func (s *Status) visit(v *visitor) {
	v.int32(1, "code", &s.Code)
	v.str(2, "message", &s.Message)
}
