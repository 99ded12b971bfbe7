package mesh

import (
	"net/netip"
	"time"
)

// WorkloadKind is the kind of object that owns replicas.
type WorkloadKind string

// The kinds that local mode runs.
const (
	KindDeployment  WorkloadKind = "Deployment"
	KindStatefulSet WorkloadKind = "StatefulSet"
	KindJob         WorkloadKind = "Job"
	KindProgram     WorkloadKind = "Program" // added by `vitrine run`
)

// RestartPolicy says when a program that ended is started again.
type RestartPolicy string

// Kubernetes' restart policies.
const (
	RestartAlways    RestartPolicy = "Always"
	RestartOnFailure RestartPolicy = "OnFailure"
	RestartNever     RestartPolicy = "Never"
)

// WorkloadSet is the requested form of a set of equal replicas: a Deployment, a
// StatefulSet, a Job, or a program added by `vitrine run`.
type WorkloadSet struct {
	Kind           WorkloadKind
	Namespace      string
	Name           string
	Source         string // file:line it was read from; "" if it came from the command line
	Replicas       int    // for a Job: parallelism
	Completions    int    // Job only: successful ends wanted
	BackoffLimit   int    // Job only: failures allowed before it is given up
	Labels         map[string]string
	Annotations    map[string]string
	ServiceAccount string
	Restart        RestartPolicy
	Recreate       bool          `json:",omitempty"` // Deployment only: all old replicas end before a new one starts
	Parallel       bool          `json:",omitempty"` // StatefulSet only: replicas start and end without waiting for each other
	GracePeriod    time.Duration // from SIGTERM to SIGKILL
	InitContainers []Container   // run in order, each to success, before Containers
	Containers     []Container   // share the case; at least one; Sidecars come first
	Publish        []Publish     // `vitrine run --publish`
}

// Publish opens a port of one workload on the host.
type Publish struct {
	Host netip.AddrPort
	Port uint16 // of the program
}

// Container is one program of a workload. The name is Kubernetes'; there is no
// container image: Args is run on this machine.
type Container struct {
	Name      string
	Args      []string // command and args, never empty
	Dir       string   // absolute; "" means the directory of the file, set by manifest
	Env       []EnvVar // complete and in order, $(VAR) references already expanded
	Ports     []ContainerPort
	Files     []File // mounted ConfigMaps, Secrets and downward-API files
	Dirs      []Dir  // mounted empty directories
	Liveness  *Probe
	Readiness *Probe
	Startup   *Probe
	// Sidecar is set for one of WorkloadSet.Containers that starts among the init
	// containers; nil for one that starts after them.
	Sidecar *SidecarPlace `json:",omitempty"`
}

// SidecarPlace is the place of a container that goes on running beside the others
// and is there before them: Kubernetes' init container with restartPolicy Always.
// What follows it starts when it has started, and it ends after them.
type SidecarPlace struct {
	AfterInit int // how many of WorkloadSet.InitContainers end before it starts
}

// EnvVar is one variable. FieldPath is set for downward-API variables, which
// are filled in when the replica is made: metadata.name, metadata.namespace,
// metadata.uid, status.podIP, status.podIPs, status.hostIP, status.hostIPs,
// spec.nodeName, spec.serviceAccountName, metadata.labels['k'],
// metadata.annotations['k'].
type EnvVar struct {
	Name      string
	Value     string
	FieldPath string
}

// ContainerPort is a port that the program says it listens on.
type ContainerPort struct {
	Name     string
	Port     uint16
	Protocol Protocol
	// What Services say is no part of the replica's form: Targeted marks a port that the
	// container does not declare, Given is what it declares of one whose Protocol is a
	// Service's; nil for any other.
	Targeted bool      `json:",omitempty"`
	Given    *Protocol `json:",omitempty"`
}

// File is a file that is visible to the programs of the replica at Path, and
// nowhere else. All its containers see it: they share one file system.
type File struct {
	Path string // absolute, inside the case
	Data []byte
	Mode uint32 // permission bits
	// FieldPath is set for a downward-API file, whose content is filled in when
	// the replica is made: those of EnvVar, metadata.labels, metadata.annotations.
	FieldPath string
	// Mount is the mount point of the volume that the file comes with: the
	// directory there holds the files that name it and nothing else. "" mounts
	// the file alone and leaves its directory as it is (subPath).
	Mount string
}

// Dir is a writable directory, empty when the replica is made, that is visible
// to the programs of the replica at Path. Dirs that name the same Volume are one
// directory; v/sub is the directory sub in v.
type Dir struct {
	Path   string // absolute, inside the case
	Volume string
}

// Probe asks a program whether it is started, ready or alive. Exactly one of
// HTTP, TCP, GRPC and Exec is set.
type Probe struct {
	HTTP *HTTPProbe
	TCP  *TCPProbe
	GRPC *GRPCProbe
	Exec []string

	InitialDelay     time.Duration
	Period           time.Duration
	Timeout          time.Duration
	SuccessThreshold int
	FailureThreshold int
}

// HTTPProbe succeeds on a status of 200 … 399.
type HTTPProbe struct {
	Port    uint16
	Path    string
	Scheme  string // HTTP or HTTPS (certificate not verified, as the kubelet does)
	Host    string
	Headers []EnvVar // Name and Value only
}

// TCPProbe succeeds when a connection opens.
type TCPProbe struct{ Port uint16 }

// GRPCProbe asks grpc.health.v1.Health.
type GRPCProbe struct {
	Port    uint16
	Service string
}
