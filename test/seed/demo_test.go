package seed

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/meshtest"
)

// layOutDemo copies the demo, and returns its directory. Nothing is published, since
// something else on the machine may have these ports.
func layOutDemo(t *testing.T) string {
	t.Helper()
	shop, _ := layOut(t)
	edit(t, filepath.Dir(shop), filepath.Join(bin.Module, "demo", "shop.yaml"), "  type: LoadBalancer\n", "")
	return filepath.Dir(shop)
}

// TestDemo: `vitrine demo --duration` ends by itself, and says that the load and the
// proxies at both ends counted the same.
func TestDemo(t *testing.T) {
	m := meshtest.Prepare(t, &bin, meshtest.Options{Demo: layOutDemo(t), For: 12 * time.Second, AsUser: os.Geteuid() == 0})
	m.Up()
	m.WaitOutput("\nready after ")
	_, _ = m.ListPods() // whose namespaces must be gone at the end, if it has not come
	m.WaitEnd()
	out := m.Output()
	counts := regexp.MustCompile(`(?m)^the load sent (\d+), counted (\d+) at the client, (\d+) at the server$`).FindStringSubmatch(out)
	if counts == nil || counts[1] == "0" || counts[1] != counts[2] || counts[1] != counts[3] {
		t.Errorf("no verdict, or not the one of a truthful mesh: %q", counts)
	}
	for _, edge := range words(t, filepath.Join(bin.Module, "demo", "edges.txt")) {
		from, _, _ := strings.Cut(edge, " ")
		if !strings.Contains(out, "\n"+from) {
			t.Errorf("the summary has no edge of %s", from)
		}
	}
	if strings.Contains(out, "DIFFERS") || strings.Count(out, "   exact\n") < 10 {
		t.Errorf("not all edges are exact:\n%s", out)
	}
}

// TestDemoIsInterrupted: Ctrl-C leaves nothing behind, which Stop looks for.
func TestDemoIsInterrupted(t *testing.T) {
	m := meshtest.Start(t, &bin, meshtest.Options{Demo: layOutDemo(t)})
	// The mesh is up a moment before the demo says so.
	m.WaitOutput("\nCtrl-C stops everything.\n")
	m.Stop()
	m.WaitOutput("\nstopping ")
}
