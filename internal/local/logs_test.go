package local

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// TestOutputOfNewPods: the lines that were shown before a takeover are not shown
// again, and every one of another pod is, whatever it is called.
func TestOutputOfNewPods(t *testing.T) {
	var shown []string
	s := &Supervisor{pods: map[string]*keptPod{}, o: Options{Output: func(_, _ string, line []byte) { shown = append(shown, string(line)) }}}
	dir := t.TempDir()
	add := func(namespace string, adopted bool, lines string) {
		t.Helper()
		logs := filepath.Join(dir, namespace, "kv-0")
		if err := os.MkdirAll(logs, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(pod.LogPath(logs, "app"), []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
		p := newKeptPod(&pod.Bootstrap{
			Workload: mesh.Workload{Namespace: namespace, Name: "kv-0"}, LogDir: logs,
			Set: mesh.WorkloadSet{Containers: []mesh.Container{{Name: "app"}}},
		}, 0)
		p.adopted = adopted
		s.pods[p.key] = p
	}
	open := tailedLogs{}
	defer open.close()
	look := func(want ...string) {
		t.Helper()
		shown = nil
		if err := s.showOutput(&open, false); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(shown, want) {
			t.Errorf("shown %q, want %q", shown, want)
		}
	}
	add("default", true, "before the takeover\n")
	look()
	add("other", false, "of another namespace\n")
	look("of another namespace")
	delete(s.pods, "default/kv-0")
	if err := os.RemoveAll(filepath.Join(dir, "default")); err != nil {
		t.Fatal(err)
	}
	look()
	add("default", false, "of the next one\n")
	look("of the next one")
}
