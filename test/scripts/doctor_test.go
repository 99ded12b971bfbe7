package scripts

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestDoctorNamesWhatIsMissing takes things away from the doctor: in namespaces
// of its own, which only root can make, so as another user there is nothing to do.
func TestDoctorNamesWhatIsMissing(t *testing.T) {
	if os.Geteuid() != 0 {
		return
	}
	all := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
	for name, c := range map[string]struct {
		attr   syscall.SysProcAttr
		before string // shell commands
		want   []string
	}{
		"no user namespaces": {
			attr:   syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: all, GidMappings: all, GidMappingsEnableSetgroups: true},
			before: "echo 0 > /proc/sys/user/max_user_namespaces; set -- setpriv --reuid=1001 --regid=1001 --clear-groups --",
			want:   []string{"FAIL  user namespace settings: user.max_user_namespaces=0", "run `sysctl user.max_user_namespaces=10000` as root", "FAIL  create namespaces: "},
		},
		"ports in use": {
			attr:   syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET},
			before: "ip link set lo up; hello serve 9090 >&2 & trap \"kill $!\" EXIT; until hello get http://127.0.0.1:9090/ >&2; do :; done",
			want:   []string{"FAIL  Prometheus API 127.0.0.1:9090: ", "choose another address with --prometheus-addr", "ok    control-plane metrics 127.0.0.1:15014: free"},
		},
		"few open files": {
			before: "ulimit -Sn 200; ulimit -Hn 200",
			want:   []string{"FAIL  open files: at most 200", "raise the hard limit of open files"},
		},
		"no place for data": {
			before: "set -- setpriv --reuid=1001 --regid=1001 --clear-groups --; HOME=/proc",
			want:   []string{"FAIL  data directory /proc/.local/share/vitrine: ", "choose another directory with --data-dir"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-c", c.before+"\n\"$@\" vitrine doctor --run-dir /tmp/vs-doctor-$$; code=$?; rm -rf /tmp/vs-doctor-$$; exit $code")
			cmd.Env = []string{"PATH=" + bins.Root + "/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + dir}
			cmd.SysProcAttr = &c.attr
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("it ended with %v", err)
			}
			for _, want := range c.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
		})
	}
}
