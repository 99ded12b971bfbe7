package intercept

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// agentCaps are the capabilities (over its own user namespace) that P1 needs
// when it is not root: interfaces and rules, mounts, dropping the programs'
// capability bounds, telling programs that UDP does not arrive. execve(2) drops
// all others for a user who is not root.
func agentCaps() []uintptr {
	return []uintptr{unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP, unix.CAP_NET_RAW}
}

// programCaps are the capabilities that programs can ever have: Docker's default
// set. Missing from it are, above all, those that would let a program started by
// root leave its case or change its rules: NET_ADMIN, SYS_ADMIN, SYS_PTRACE,
// SYS_MODULE, BPF. NET_RAW stays for ping; with it such a program may mark its
// sockets (socket(7), SO_MARK) and so go past the redirection, but not out: there
// is nothing in the case beyond its loopback device.
func programCaps() []int {
	return []int{
		unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FSETID, unix.CAP_FOWNER, unix.CAP_MKNOD,
		unix.CAP_NET_RAW, unix.CAP_SETGID, unix.CAP_SETUID, unix.CAP_SETFCAP, unix.CAP_SETPCAP,
		unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_CHROOT, unix.CAP_KILL, unix.CAP_AUDIT_WRITE,
	}
}

// maxCap is above every capability of today's kernels; asking for an unknown one
// ends the loop.
const maxCap = 63

// boundThread takes away from the calling thread, and so from what it starts,
// every capability that programs must not have. The thread keeps its own
// permitted set, which execve(2) then cuts.
func boundThread() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	keep := map[int]bool{}
	for _, c := range programCaps() {
		keep[c] = true
	}
	for c := 0; c <= maxCap; c++ {
		if keep[c] {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			if errors.Is(err, unix.EINVAL) {
				break // the kernel knows no more
			}
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("clear inheritable capabilities: %w", err)
	}
	return nil
}

// hasSysAdmin reports whether this process may make namespaces without a user
// namespace.
func hasSysAdmin() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	need := uint32(1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN)
	return data[0].Effective&need == need
}
