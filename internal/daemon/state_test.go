package daemon

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// holdEnv makes this test binary hold the lock of the pod directory that it
// names until its standard input ends.
const holdEnv = "VITRINE_TEST_HOLD"

func hold(dir string) int {
	lock, err := pod.Acquire(dir)
	if err != nil {
		return 1
	}
	defer lock.Release()
	if _, err := os.Stdout.WriteString("held\n"); err != nil {
		return 1
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// aloneEnv says to this test binary that it runs in a network of its own.
const aloneEnv = "VITRINE_TEST_ALONE"

// alone runs the calling test once more in a network namespace of its own, and
// reports false; in that run it reports true. The host's other meshes would take
// the networks that the test wants.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(aloneEnv) != "" {
		loopbackUp(t)
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), aloneEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()+" ") {
		t.Fatalf("in a network of its own: %v\n%s", err, out)
	}
	return false
}

// loopbackUp gives a new network namespace its 127.0.0.0/8.
func loopbackUp(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		t.Fatal(err)
	}
}

// livePod makes a pod whose process runs and serves nothing.
func livePod(t *testing.T, runDir string, net uint8) {
	t.Helper()
	dir := filepath.Join(runDir, "pods", "default", "api")
	set := mesh.WorkloadSet{
		Kind: mesh.KindProgram, Namespace: "default", Name: "api", Replicas: 1, GracePeriod: time.Second,
		Containers: []mesh.Container{{Name: "api", Args: []string{"/bin/true"}}}, Restart: mesh.RestartNever,
	}
	boot := &pod.Bootstrap{
		Workload: mesh.Workload{
			Name: "api", Namespace: "default", Owner: "api", OwnerKind: set.Kind, Cluster: mesh.DefaultCluster,
			IP: mesh.IP(net, 7), CaseIP: mesh.CaseIP4(7), CaseIP6: netip.Addr{},
		},
		Set: set, Net: net, XDSSocket: filepath.Join(runDir, xdsSocket), ControlSocket: filepath.Join(runDir, controlSocket),
		RunDir: dir, StateDir: filepath.Join(runDir, "state"), Foreground: true,
	}
	if _, err := boot.Write(); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), holdEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // if the tests are killed
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	stuck := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "held\n" {
		t.Fatalf("%q, %v", line, err)
	}
}

// Two meshes that start at the same moment get different networks, and a mesh
// gets the one that it had before if that is free.
func TestNetworkIsClaimed(t *testing.T) {
	if !alone(t) {
		return
	}
	first, second := t.TempDir(), t.TempDir()
	a, claim, err := chooseNet(t.Context(), first, "/data")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(second, stateFile), fmt.Appendf(nil, `{"net":%d}`, a), 0o600); err != nil {
		t.Fatal(err)
	}
	b, other, err := chooseNet(t.Context(), second, "/data")
	if err != nil || b == a {
		t.Fatalf("second network %d, %v; the first has %d", b, err, a)
	}
	claim.Close()
	defer other.Close()
	again, claim, err := chooseNet(t.Context(), first, "/data")
	if err != nil || again != a {
		t.Fatalf("network %d, %v; it was %d", again, err, a)
	}
	claim.Close()
}

// Whatever became of mesh.json, programs that still run keep their network.
func TestNetworkOfRunningPodsIsKept(t *testing.T) {
	if !alone(t) {
		return
	}
	const net = mesh.MeshNetFirst + 11
	for name, content := range map[string]string{
		"empty":         "",
		"cut short":     `{"net":`,
		"another mesh":  `{"net":80,"dataDir":"/x"}`,
		"as it was":     `{"net":88,"dataDir":"/x"}`,
		"out of bounds": `{"net":3}`,
	} {
		t.Run(name, func(t *testing.T) {
			runDir := t.TempDir()
			livePod(t, runDir, net)
			if err := os.WriteFile(filepath.Join(runDir, stateFile), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			got, claim, err := chooseNet(t.Context(), runDir, "/data")
			if err != nil || got != net {
				t.Fatalf("network %d, %v; want %d", got, err, net)
			}
			defer claim.Close()
			if s := readState(runDir); s != (meshState{Net: net, DataDir: "/data"}) {
				t.Errorf("written down: %+v", s)
			}
		})
	}
}
