package pod

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Phase is Kubernetes' pod phase.
type Phase string

// The phases of a pod. Succeeded and Failed are final.
const (
	Pending   Phase = "Pending" // init containers have not all succeeded
	Running   Phase = "Running"
	Succeeded Phase = "Succeeded" // all containers ended with 0 and will not be restarted
	Failed    Phase = "Failed"    // all containers ended, at least one in failure
)

// Ended reports whether nothing will run any more in this phase.
func (p Phase) Ended() bool { return p == Succeeded || p == Failed }

// State is what one container does.
type State string

// The states of a container. A container that never started is Waiting.
const (
	Waiting    State = "Waiting"
	Live       State = "Running"
	Terminated State = "Terminated"
)

// Reasons, spelt as Kubernetes spells them.
const (
	ReasonCrashLoop   = "CrashLoopBackOff"
	ReasonCompleted   = "Completed"
	ReasonError       = "Error"
	ReasonStartError  = "StartError"
	ReasonInit        = "PodInitializing"
	ReasonCreating    = "ContainerCreating"
	ReasonTerminating = "Terminating"
	// ReasonBackoffLimit is why a Job has failed (batch/v1, JobReasonBackoffLimitExceeded).
	ReasonBackoffLimit = "BackoffLimitExceeded"
	ReasonProxyError   = "ProxyError" // the case or the proxy failed, not a program; Vitrine's own
)

// Status is the state of a pod at one moment.
type Status struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	PID       int       `json:"pid"` // of the pod's own process, in the host's numbering
	Phase     Phase     `json:"phase"`
	Reason    string    `json:"reason,omitempty"`
	Message   string    `json:"message,omitempty"`
	Ready     bool      `json:"ready"`
	Stopping  bool      `json:"stopping,omitempty"`
	Started   time.Time `json:"started"`
	// Init containers come first, in the order in which they run.
	Containers []ContainerStatus `json:"containers"`
}

// Restarts is the number of restarts of all containers.
func (s *Status) Restarts() int {
	n := 0
	for i := range s.Containers {
		n += s.Containers[i].Restarts
	}
	return n
}

// ContainerStatus is the state of one container.
type ContainerStatus struct {
	Name     string    `json:"name"`
	Init     bool      `json:"init,omitempty"`
	State    State     `json:"state"`
	Reason   string    `json:"reason,omitempty"`
	Message  string    `json:"message,omitempty"`
	PID      int       `json:"pid,omitempty"` // on the host; 0 unless running
	Started  bool      `json:"started"`       // passed its startup probe
	Ready    bool      `json:"ready"`
	Restarts int       `json:"restarts"`       // those under earlier processes of the pod included
	Since    time.Time `json:"since,omitzero"` // start of the running program
	// CPUSeconds are those of the programs that have ended, counted in the same
	// update in which PID becomes 0.
	CPUSeconds float64   `json:"cpuSeconds,omitempty"`
	LastExit   *LastExit `json:"lastExit,omitempty"`
}

// LastExit tells how the previous program of a container ended.
type LastExit struct {
	Code     int       `json:"code"`             // 128+signal for a death by signal
	Signal   int       `json:"signal,omitempty"` // 0 unless it died by one
	Reason   string    `json:"reason"`
	Message  string    `json:"message,omitempty"` // why it could not be started, or was ended
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished"`
}

// WriteFinal stores the last status of a pod that ended for good, for a
// supervisor that does not run at the moment.
func WriteFinal(runDir string, s *Status) error {
	if err := writeJSON(filepath.Join(runDir, FinalFile), s); err != nil {
		return fmt.Errorf("write final status of %s/%s: %w", s.Namespace, s.Name, err)
	}
	return nil
}

// ReadFinal reads what WriteFinal wrote; ok is false if there is none.
func ReadFinal(runDir string) (s Status, ok bool) {
	data, err := os.ReadFile(filepath.Join(runDir, FinalFile))
	if err != nil || json.Unmarshal(data, &s) != nil {
		return Status{}, false
	}
	return s, true
}
