package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vitrine-mesh/vitrine/internal/durable"
	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// meshState is what a mesh remembers in its run directory.
type meshState struct {
	Net     uint8  `json:"net"`
	DataDir string `json:"dataDir"`
}

// readState is the state of the last mesh in runDir; the zero value if there is
// none.
func readState(runDir string) meshState {
	var s meshState
	data, err := os.ReadFile(filepath.Join(runDir, stateFile))
	if err != nil || json.Unmarshal(data, &s) != nil || s.Net < mesh.MeshNetFirst || s.Net > mesh.MeshNetLast {
		return meshState{}
	}
	return s
}

// chooseNet finds the network byte of this mesh's IPs: the one it had before,
// or one that no socket of this machine uses. Two meshes of different users
// thereby get different addresses. The choice is written down with dataDir. The
// network is the caller's until the claim is closed: a mesh that starts at the
// same moment takes another one.
func chooseNet(ctx context.Context, runDir, dataDir string) (_ uint8, claim io.Closer, err error) {
	s := readState(runDir)
	if live := livePods(runDir); len(live) > 0 {
		// Programs keep their addresses, whatever became of the file.
		if !slices.ContainsFunc(live, func(b *pod.Bootstrap) bool { return b.Net == s.Net }) {
			s.Net = live[0].Net
		}
		if claim, err = claimNet(ctx, s.Net); err != nil {
			return 0, nil, fmt.Errorf("take over the network of running programs: %w", err)
		}
	} else if s.Net, claim, err = freeNet(ctx, runDir, s.Net); err != nil {
		return 0, nil, err
	}
	defer func() {
		if err != nil {
			claim.Close()
		}
	}()
	s.DataDir = dataDir
	data, err := json.Marshal(s)
	if err != nil {
		return 0, nil, fmt.Errorf("encode mesh state: %w", err)
	}
	if err := durable.Replace(filepath.Join(runDir, stateFile), append(data, '\n')); err != nil {
		return 0, nil, fmt.Errorf("write mesh state: %w", err)
	}
	return s.Net, claim, nil
}

// claimNet takes a network for as long as the result is open, by an address that
// no workload has. The kernel gives it to one process only.
func claimNet(ctx context.Context, n uint8) (io.Closer, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", netip.AddrPortFrom(mesh.IP(n, 1), mesh.PortAdmin).String())
	if err != nil {
		return nil, fmt.Errorf("claim mesh network 127.%d.0.0: %w", n, err)
	}
	return ln, nil
}

// freeNet claims a network that nobody uses. It begins with the one that this
// mesh had before (0 is none), then with the default for root's default mesh, and
// with a number from the directory's name for others, so that meshes seldom meet.
func freeNet(ctx context.Context, runDir string, before uint8) (uint8, io.Closer, error) {
	used, err := usedNets()
	if err != nil {
		return 0, nil, err
	}
	const span = mesh.MeshNetLast - mesh.MeshNetFirst + 1
	first := 0
	if before != 0 {
		first = int(before) - mesh.MeshNetFirst
	} else if runDir != DefaultRunDir() || os.Geteuid() != 0 {
		h := fnv.New32a()
		h.Write([]byte(runDir))
		first = int(h.Sum32() % span)
	}
	for i := range span {
		n := uint8(mesh.MeshNetFirst + (first+i)%span)
		if used[n] {
			continue
		}
		if claim, err := claimNet(ctx, n); err == nil {
			return n, claim, nil
		}
	}
	return 0, nil, fmt.Errorf("all %d mesh networks 127.%d.0.0 … 127.%d.0.0 are in use on this machine: stop a mesh with `vitrine down`", span, mesh.MeshNetFirst, mesh.MeshNetLast)
}

// timeWait is the state of a connection that is over, in /proc/net/tcp. It keeps
// nobody from listening, and lasts for a minute after every mesh.
const timeWait = "06"

// usedNets reads which 127.N networks have sockets now.
func usedNets() (map[uint8]bool, error) {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return nil, fmt.Errorf("read sockets in use: %w", err)
	}
	defer f.Close()
	used := map[uint8]bool{}
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		fields := strings.Fields(scan.Text())
		// The address is printed as a native-endian word: 127.77.0.2 is 02004D7F.
		if len(fields) < 4 || len(fields[1]) < 8 || fields[1][6:8] != "7F" || fields[3] == timeWait {
			continue
		}
		if n, err := strconv.ParseUint(fields[1][4:6], 16, 8); err == nil {
			used[uint8(n)] = true
		}
	}
	return used, scan.Err()
}

// findProxy looks for vitrine-proxy beside the running executable, then in PATH.
func findProxy() (string, error) {
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), "vitrine-proxy")
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	if path, err := exec.LookPath("vitrine-proxy"); err == nil {
		return path, nil
	}
	return "", errors.New("vitrine-proxy is neither beside vitrine nor in PATH: build both with `make build`, or name it with --proxy-binary")
}
