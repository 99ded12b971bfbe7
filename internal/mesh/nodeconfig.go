package mesh

import (
	"net/netip"
	"time"
)

// Direction is the side of the workload that a listener serves.
type Direction uint8

// Directions. Inbound reports as "destination", outbound as "source".
const (
	Outbound Direction = iota
	Inbound
)

// Names that Istio gives to the clusters and routes without a service.
const (
	PassthroughCluster        = "PassthroughCluster"
	BlackHoleCluster          = "BlackHoleCluster"
	InboundPassthroughCluster = "InboundPassthroughCluster"
	RouteAllowAny             = "allow_any"
)

// NodeConfig is what one proxy needs of a Snapshot. It corresponds one to one
// to Envoy resources; package xds translates both ways without loss. Every
// slice is sorted by name. It is immutable.
type NodeConfig struct {
	Listeners []Listener
	Routes    []RouteConfig
	Clusters  []Cluster
	Endpoints []ClusterEndpoints
	Workloads []Workload // every workload of the mesh, to know peers by address
	Names     []Name     // what the case's DNS answers
}

// Listener is one place where connections arrive.
//
// Outbound listeners are not bound: they are matched against the original
// destination of what the case's catch-all listener accepted, exact address
// first, then the same port on the unspecified address, then the catch-all
// named "virtualOutbound". Inbound listeners are bound on the host
// (wire ports and published addresses).
type Listener struct {
	Name      string
	Direction Direction
	Address   netip.AddrPort
	Bind      bool
	Protocol  Protocol
	// RouteConfig names the routes for requests when the connection speaks
	// HTTP; "" for ports declared opaque. Inbound listeners route everything
	// to Cluster and leave it empty.
	RouteConfig string
	// Cluster takes connections that are not HTTP, and everything inbound.
	Cluster string
	// ProxyProtocol marks the inbound listener of all ports that the workload does
	// not declare: a connection begins with a PROXY protocol header, version 2, whose
	// destination is the address of the workload, and the port, that is wanted.
	ProxyProtocol bool
	// Publish marks an inbound listener on a published address: it is bound
	// with SO_REUSEPORT only while the workload is ready, so that the kernel
	// spreads connections over the replicas.
	Publish bool
}

// RouteConfig is the set of virtual hosts of one outbound listener or port.
type RouteConfig struct {
	Name         string
	VirtualHosts []VirtualHost
}

// VirtualHost holds the routes of a set of host names.
type VirtualHost struct {
	Name    string
	Domains []string // exact (with and without port), "*.suffix" or "*"
	Routes  []Route  // first match wins
}

// Route decides where a request goes.
type Route struct {
	Name     string
	Prefix   string // of the path; "/" matches every request
	Clusters []WeightedCluster
	Timeout  time.Duration // of the whole request; 0 is none
}

// WeightedCluster is one choice of a route.
type WeightedCluster struct {
	Cluster string
	Weight  uint32
}

// ClusterType says where a cluster's endpoints come from.
type ClusterType uint8

// Cluster types, named as in Envoy.
const (
	ClusterEDS         ClusterType = iota // endpoints from ClusterEndpoints of the same name
	ClusterLocal                          // the program of this workload, on Port
	ClusterOriginalDst                    // whatever the connection was going to
	ClusterBlackHole                      // none, on purpose
)

// Cluster is a set of endpoints that serve one port of one service.
// Names follow Istio: outbound|80||web-app.default.svc.cluster.local and
// inbound|8080||.
type Cluster struct {
	Name    string
	Type    ClusterType
	Service ServiceRef // becomes the destination_service* labels; zero for passthrough
	// Also are further services that lead to the same port of a workload. A request
	// that names one of them as its authority is counted as one to it.
	Also           []ServiceRef
	Port           uint16 // service port (EDS) or program port (ClusterLocal)
	ConnectTimeout time.Duration
}

// ClusterEndpoints are the ready endpoints of a cluster.
type ClusterEndpoints struct {
	Cluster   string
	Endpoints []Endpoint
}

// Name is one DNS name that the mesh answers.
type Name struct {
	Host      string       // fully qualified, lower case, no final dot
	Addresses []netip.Addr // as seen inside a case
	// Aliases are the shorter spellings that a workload of Namespace may use
	// without a search list; the DNS of a case derives name, name.ns and
	// name.ns.svc itself from Host.
	Namespace string
	Short     string // first label for services; "" for pod names
	// SRV are the records of a service's ports that have names: those of each port
	// stand together, in the order of the targets.
	SRV []SRV
}

// SRV is one service record (RFC 2782) below the name of a service.
type SRV struct {
	Service string // what stands before the service's host name: "_http._tcp"
	Target  string // host name of the service, or of one pod behind a headless one
	Port    uint16 // at the target's addresses
}
