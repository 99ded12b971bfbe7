package daemon

import (
	"cmp"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// The control socket speaks HTTP with JSON bodies. These are its messages; they
// are also what the command line prints with -o json.

// Status says what runs in a run directory.
type Status struct {
	Version    string    `json:"version"`
	PID        int       `json:"pid"`
	Started    time.Time `json:"started"`
	RunDir     string    `json:"runDir"`
	DataDir    string    `json:"dataDir"`
	Prometheus string    `json:"prometheus"` // base URL of the query API
	Control    string    `json:"control"`    // base URL of the control plane's own metrics
	Services   int       `json:"services"`
	Workloads  int       `json:"workloads"`
	Ready      int       `json:"ready"` // workloads that are ready
	// ScrapeInterval is how often each proxy is scraped, in nanoseconds.
	ScrapeInterval time.Duration `json:"scrapeInterval"`
	// Known tells that every connected proxy has answered for its newest
	// configuration, and with it knows which workloads are ready. A proxy that cannot be
	// told, and a pod that is ready without a connected proxy for 10 s, do not count.
	Known     bool      `json:"known"`
	Settled   bool      `json:"settled"` // every wanted workload is ready or has ended for good, and this is known
	Published []Opening `json:"published"`
	LeftOut   []string  `json:"leftOut,omitempty"` // workload sets that IO.Demo left out
	NotMade   []NotMade `json:"notMade,omitempty"` // sorted
	// FailedJobs have used up their backoffLimit. They are sorted.
	FailedJobs []WorkloadSet `json:"failedJobs,omitempty"`
}

// WorkloadSet names what makes pods: a Deployment, say.
type WorkloadSet struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

func (s WorkloadSet) String() string { return s.Kind + " " + s.Namespace + "/" + s.Name }

func (s WorkloadSet) compare(other WorkloadSet) int {
	return cmp.Or(cmp.Compare(s.Namespace, other.Namespace), cmp.Compare(s.Name, other.Name), cmp.Compare(s.Kind, other.Kind))
}

// NotMade is a workload set of which a pod that is wanted cannot be made at present.
type NotMade struct {
	WorkloadSet
	Reason string `json:"reason"` // what the last try failed for, in one line
}

func (n NotMade) String() string {
	return n.WorkloadSet.String() + ": a pod cannot be made: " + n.Reason
}

// Opening is an address of this machine that leads to a service.
type Opening struct {
	URL     string `json:"url"`
	Service string `json:"service"` // NAME.NAMESPACE
}

// Pod is one workload as `vitrine ps` shows it.
type Pod struct {
	Namespace  string            `json:"namespace"`
	Name       string            `json:"name"`
	Owner      string            `json:"owner"`
	Kind       mesh.WorkloadKind `json:"kind"`
	App        string            `json:"app,omitempty"`
	Version    string            `json:"version,omitempty"`
	IP         string            `json:"ip"`
	Ports      []uint16          `json:"ports"`
	Phase      string            `json:"phase"`
	Status     string            `json:"status"` // one word for all of it, kubectl's STATUS column
	Reason     string            `json:"reason,omitempty"`
	Message    string            `json:"message,omitempty"`
	Ready      bool              `json:"ready"`
	Restarts   int               `json:"restarts"`
	Started    time.Time         `json:"started"`
	ProxyPID   int               `json:"proxyPID"`
	PIDs       []int             `json:"pids"`
	Containers []Container       `json:"containers"`
	// InitContainers are told of once the pod's process has told of them.
	InitContainers []Container `json:"initContainers,omitempty"`
	Proxy          ProxyState  `json:"proxy"`
}

// Container is one program of a Pod.
type Container struct {
	Name     string    `json:"name"`
	State    string    `json:"state"`
	Ready    bool      `json:"ready"`
	Reason   string    `json:"reason,omitempty"`
	Message  string    `json:"message,omitempty"`
	PID      int       `json:"pid,omitempty"`
	Restarts int       `json:"restarts"`
	Started  time.Time `json:"started,omitzero"`
	// How the program ended last, if it did.
	ExitCode  *int   `json:"exitCode,omitempty"`
	LastError string `json:"lastError,omitempty"` // why it could not be started, or was ended
}

// ProxyState says whether a workload's proxy has the current configuration.
type ProxyState struct {
	Connected bool   `json:"connected"`
	Synced    bool   `json:"synced"`
	Rejected  string `json:"rejected,omitempty"` // why it refused the last push
}

// RunRequest registers one program that the caller is about to start.
type RunRequest struct {
	Service   string            `json:"service"`
	Version   string            `json:"version,omitempty"`
	Namespace string            `json:"namespace,omitempty"`
	Ports     []RunPort         `json:"ports,omitempty"`
	Publish   []mesh.Publish    `json:"publish,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Args      []string          `json:"args"`
	Dir       string            `json:"dir"`
}

// RunPort is a port of such a program.
type RunPort struct {
	Port     uint16 `json:"port"`
	Protocol string `json:"protocol,omitempty"` // as in a port name; "" is detected
}

// RunResponse tells the caller what was made of its program.
type RunResponse struct {
	Pod       string `json:"pod"`
	Namespace string `json:"namespace"`
	IP        string `json:"ip"`
	Bootstrap string `json:"bootstrap"` // file below the run directory, for Command
}

// Command is the command line that serves the program: the vitrine-proxy of this
// very installation, or the one that cfg names, and never a program that the
// control plane names.
func (r *RunResponse) Command(cfg *Config) ([]string, error) {
	own := Config{ProxyBinary: cfg.ProxyBinary}
	if err := own.findProxy(); err != nil {
		return nil, err
	}
	return []string{own.ProxyBinary, "sidecar", "--bootstrap", r.Bootstrap}, nil
}

// apiError is the body of every answer that is not 2xx.
type apiError struct {
	Error string `json:"error"`
}
