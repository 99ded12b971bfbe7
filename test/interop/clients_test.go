//go:build interop

package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
	"github.com/vitrine-mesh/vitrine/internal/meshtest"
)

// TestKialiAndGrafana: the code of Kiali draws the demo's graph from our API, with the
// edges that `vitrine graph` prints, and Grafana's data source works from it.
func TestKialiAndGrafana(t *testing.T) {
	clients := tool(t, filepath.Join("interop", "clients.test"))
	dir, err := os.MkdirTemp("/tmp", "vt-") //nolint:usetesting // short: the paths of Unix sockets are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &meshRun{runDir: filepath.Join(dir, "run")}
	start(t, time.Minute, tool(t, "vitrine"), "demo", "--run-dir", m.runDir, "--data-dir", filepath.Join(dir, "data"),
		"--prometheus-addr", "127.0.0.1:0", "--control-addr", "127.0.0.1:0")
	m.client = daemon.NewClient(m.runDir)
	file := filepath.Join(dir, "graph.json")
	// Both look at the last minute, one after the other: they agree when nothing rare
	// has just begun or ended.
	meshtest.Eventually(t, func() error {
		status, err := m.client.Status(t.Context())
		if err != nil {
			return err
		}
		printed, err := m.cli(t, "graph", "-o", "json")
		if err != nil {
			return err
		}
		if n := strings.Count(printed, `"protocol"`); n < demoEdges {
			return fmt.Errorf("vitrine graph has %d edges", n)
		}
		if err := os.WriteFile(file, []byte(printed), 0o600); err != nil {
			return err
		}
		_, err = command(t, clients, "-prometheus", status.Prometheus, "-graph", file)
		return err
	})
}

// demoEdges is how many edges the demo has when it has run for a while.
const demoEdges = 13
