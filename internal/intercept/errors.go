package intercept

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// SetupError says which step of building a case failed and what mends it.
type SetupError struct {
	Step   string // for example "load the nftables rules"
	Err    error
	Remedy string // what the user can do; "" if nothing is known
}

// Error names step, cause and remedy.
func (e *SetupError) Error() string {
	s := fmt.Sprintf("build the case: %s: %v", e.Step, e.Err)
	if e.Remedy != "" {
		s += " (" + e.Remedy + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *SetupError) Unwrap() error { return e.Err }

// StartError says why a program could not be started. Code is the exit code that
// a shell would give: 127 if the program does not exist, else 126. It wraps the
// error number, so os.ErrNotExist and os.ErrPermission can be asked for.
type StartError struct {
	Program string
	Code    int
	Reason  string
	Errno   syscall.Errno // 0 if unknown
}

// Error names the program and the reason.
func (e *StartError) Error() string { return "start " + e.Program + ": " + e.Reason }

// Unwrap returns the error number.
func (e *StartError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// errCaseGone is returned when P1 has ended.
var errCaseGone = errors.New("the case is gone: its agent has ended")

// remoteError is an error that happened in P1.
type remoteError struct {
	text  string
	errno syscall.Errno
}

func (e *remoteError) Error() string { return e.text }

// Unwrap gives errors.Is the error number.
func (e *remoteError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

// Names of the setup steps; remedies hang on them.
const (
	stepNamespaces = "create namespaces"
	stepExec       = "start the agent"
	stepLoopback   = "configure the loopback interface"
	stepRules      = "load the nftables rules"
	stepListen     = "open the listeners"
	stepMounts     = "mount the case's files"
	stepVolumes    = "mount the volumes"
	stepHandshake  = "talk to the agent"
)

const remedyAppArmor = "AppArmor forbids capabilities in user namespaces here: install the AppArmor profile " +
	"of vitrine-proxy, or run `sysctl kernel.apparmor_restrict_unprivileged_userns=0` as root, or run as root"

// newSetupError adds the remedy that fits the step and the state of this host.
func newSetupError(step string, err error) *SetupError {
	return &SetupError{Step: step, Err: err, Remedy: remedy(step, err)}
}

func remedy(step string, err error) string {
	denied := errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES)
	switch step {
	case stepNamespaces:
		switch {
		case sysctl("user/max_user_namespaces") == "0" || errors.Is(err, syscall.ENOSPC):
			return "user namespaces are used up or switched off: raise `sysctl user.max_user_namespaces` as root"
		case sysctl("kernel/unprivileged_userns_clone") == "0":
			return "run `sysctl kernel.unprivileged_userns_clone=1` as root"
		case denied && sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
			return remedyAppArmor
		case denied:
			return "namespaces are forbidden here, as containers do by default: " +
				"run outside the container, or with a seccomp profile that allows user namespaces"
		case errors.Is(err, syscall.EINVAL):
			return "the kernel was built without a namespace that is needed (CONFIG_USER_NS, CONFIG_NET_NS, CONFIG_PID_NS)"
		}
	case stepVolumes:
		return "change the mountPath of the volume, or make the directory there on this machine; nothing can be mounted below a file"
	case stepLoopback, stepMounts, stepListen, stepRules:
		if denied && sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1" {
			return remedyAppArmor
		}
		if step == stepRules {
			return "the kernel needs nf_tables with NAT and redirect: run " +
				"`modprobe -a nf_tables nft_redir nft_nat nft_chain_nat nft_tproxy nft_socket` as root"
		}
	}
	return ""
}

// sysctl reads /proc/sys/NAME; "" if it does not exist.
func sysctl(name string) string {
	data, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
