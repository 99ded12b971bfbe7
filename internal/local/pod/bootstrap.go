package pod

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/durable"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// Names of the files in the run directory of one pod.
const (
	BootstrapFile = "bootstrap.json"
	// VolumeDir is where the pod's volumes are, in its state directory.
	VolumeDir  = "volumes"
	FinalFile  = "final.json" // last Status of a pod that ended for good
	SocketFile = "pod.sock"
	lockFile   = "lock"
)

// ProxyContainer is the name under which the proxy's own log and resource use
// are kept, Istio's name for its sidecar.
const ProxyContainer = "istio-proxy"

// Bootstrap is everything that the process of one pod is told when it starts,
// and what a supervisor that takes the pod over has to know. It is written
// before each start of the process; but for Runs it stays the same.
type Bootstrap struct {
	Workload mesh.Workload    `json:"workload"`
	Set      mesh.WorkloadSet `json:"set"`
	// Template identifies the form of Set that the pod was made from; a pod
	// whose Template differs from its set's is replaced.
	Template string `json:"template"`
	// RestartedAt distinguishes templates that differ only in that a restart
	// was asked for (as kubectl's restartedAt annotation); "" for none.
	RestartedAt string `json:"restartedAt,omitempty"`
	Net         uint8  `json:"net"` // network byte of the mesh IPs (mesh.IP)

	XDSSocket     string `json:"xdsSocket"`     // ADS of the control plane
	ControlSocket string `json:"controlSocket"` // takes the last metrics
	RunDir        string `json:"runDir"`        // of this pod: socket, lock, this file
	StateDir      string `json:"stateDir"`      // of this pod, survives reboots: last good configuration, volumes
	LogDir        string `json:"logDir"`        // of this pod; "" keeps no logs

	// Foreground hands the caller's terminal to the one program, which is
	// never restarted; its end is the end of the pod.
	Foreground bool `json:"foreground,omitempty"`
	// Created is when the pod was made; its process may be younger.
	Created time.Time `json:"created,omitzero"`
	// Runs is how often each container was started by processes of this pod that
	// have died, by name. A container that is not in it was never started.
	Runs map[string]int `json:"runs,omitempty"`
	// AccessLog writes one line per request to the proxy's log.
	AccessLog bool `json:"accessLog,omitempty"`
	// EvictAfter is when the proxy forgets a silent series; 0 is the proxy's
	// default, negative is never.
	EvictAfter time.Duration `json:"evictAfter,omitempty"`
	// LogLevel is the least level of the proxy's own log: debug, info, warn or
	// error; "" is info (warn in the foreground).
	LogLevel string `json:"logLevel,omitempty"`
}

// Validate reports every reason why no pod can be started from b.
func (b *Bootstrap) Validate() error {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New(what))
		}
	}
	need(b.Workload.Name != "" && b.Workload.Namespace != "", "the workload needs a name and a namespace")
	need(b.Net >= mesh.MeshNetFirst && b.Net <= mesh.MeshNetLast,
		fmt.Sprintf("net is %d, must be %d to %d", b.Net, mesh.MeshNetFirst, mesh.MeshNetLast))
	i, ok := mesh.IndexOf(b.Net, b.Workload.IP)
	need(ok && b.Workload.IP == mesh.IP(b.Net, i), fmt.Sprintf("workload address %s is not a mesh IP of network %d", b.Workload.IP, b.Net))
	need(ok && b.Workload.CaseIP == mesh.CaseIP4(i), fmt.Sprintf("case address %s does not belong to mesh IP %s", b.Workload.CaseIP, b.Workload.IP))
	need(!b.Workload.CaseIP6.IsValid() || b.Workload.CaseIP6 == mesh.CaseIP6(i),
		fmt.Sprintf("case address %s does not belong to mesh IP %s", b.Workload.CaseIP6, b.Workload.IP))
	for name, path := range map[string]string{"xdsSocket": b.XDSSocket, "controlSocket": b.ControlSocket, "runDir": b.RunDir, "stateDir": b.StateDir} {
		need(filepath.IsAbs(path), fmt.Sprintf("%s is %q, must be an absolute path", name, path))
	}
	need(b.LogDir == "" || filepath.IsAbs(b.LogDir), fmt.Sprintf("logDir is %q, must be an absolute path", b.LogDir))
	need(!b.Foreground || len(b.Set.Containers) == 1 && len(b.Set.InitContainers) == 0, "a pod in the foreground has exactly one container")
	need(len(b.Set.Containers) > 0, "the set has no containers")
	switch b.Set.Restart {
	case mesh.RestartAlways, mesh.RestartOnFailure, mesh.RestartNever:
	default:
		need(false, fmt.Sprintf("restart policy %q is none of Always, OnFailure, Never", b.Set.Restart))
	}
	need(b.Set.GracePeriod >= 0, "the grace period is negative")
	switch b.LogLevel {
	case "", "debug", "info", "warn", "error":
	default:
		need(false, fmt.Sprintf("log level %q is none of debug, info, warn, error", b.LogLevel))
	}
	errs = append(errs, validateContainers(&b.Set)...)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("bootstrap of %s: %w", b.Workload.Key(), err)
	}
	return nil
}

func validateContainers(set *mesh.WorkloadSet) []error {
	var errs []error
	place := 0 // among the init containers
	for i := range set.Containers {
		switch side := set.Containers[i].Sidecar; {
		case side == nil:
			place = len(set.InitContainers) + 1 // no Sidecar may follow
		case side.AfterInit < place || side.AfterInit > len(set.InitContainers):
			errs = append(errs, fmt.Errorf("container %s is a sidecar after %d of %d init containers: sidecars come first, in the order of their start",
				set.Containers[i].Name, side.AfterInit, len(set.InitContainers)))
		default:
			place = side.AfterInit
		}
	}
	names := map[string]bool{ProxyContainer: true}
	mounts := map[string]mesh.Mount{}
	for _, c := range append(append([]mesh.Container{}, set.InitContainers...), set.Containers...) {
		if c.Name == "" || strings.ContainsAny(c.Name, "/\x00") || c.Name == "." || c.Name == ".." {
			errs = append(errs, fmt.Errorf("container name %q cannot be a file name", c.Name))
		}
		if names[c.Name] {
			errs = append(errs, fmt.Errorf("container name %q is taken: give each container its own (%s is the proxy's)", c.Name, ProxyContainer))
		}
		names[c.Name] = true
		if len(c.Args) == 0 || c.Args[0] == "" {
			errs = append(errs, fmt.Errorf("container %s has no command", c.Name))
		}
		if c.Dir != "" && !filepath.IsAbs(c.Dir) {
			errs = append(errs, fmt.Errorf("container %s: working directory %q must be an absolute path", c.Name, c.Dir))
		}
		for _, m := range c.Mounts() {
			if old, ok := mounts[m.Path]; ok && old.Hides(&m) {
				errs = append(errs, fmt.Errorf("container %s: what is mounted at %s differs between containers, which share one case: use different paths", c.Name, m.Path))
			}
			mounts[m.Path] = m
		}
		for kind, p := range map[string]*mesh.Probe{"liveness": c.Liveness, "readiness": c.Readiness, "startup": c.Startup} {
			if p != nil && p.HTTP == nil && p.TCP == nil && p.GRPC == nil && len(p.Exec) == 0 {
				errs = append(errs, fmt.Errorf("container %s: the %s probe asks nothing", c.Name, kind))
			}
		}
	}
	return errs
}

// ReadBootstrap reads and validates a bootstrap file.
func ReadBootstrap(path string) (*Bootstrap, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read bootstrap: %w", err)
	}
	b := new(Bootstrap)
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(b); err != nil {
		return nil, fmt.Errorf("read bootstrap %s: %w (was it written by another version of vitrine?)", path, err)
	}
	if err := b.Validate(); err != nil {
		return nil, err
	}
	return b, nil
}

// Write validates b and stores it as BootstrapFile in its run directory, which
// is made if needed and readable only by the owner: environment variables and
// secrets are in it. It returns the file's path.
func (b *Bootstrap) Write() (string, error) {
	if err := b.Validate(); err != nil {
		return "", err
	}
	if err := os.MkdirAll(b.RunDir, 0o700); err != nil {
		return "", fmt.Errorf("make run directory of %s: %w", b.Workload.Key(), err)
	}
	path := filepath.Join(b.RunDir, BootstrapFile)
	if err := writeJSON(path, b); err != nil {
		return "", fmt.Errorf("write bootstrap of %s: %w", b.Workload.Key(), err)
	}
	return path, nil
}

// writeJSON replaces path in one step: a reader sees the old or the new
// content, never a part.
func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	return durable.ReplaceRuntime(path, data)
}
