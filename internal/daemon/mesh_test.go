package daemon

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// newMesh makes a mesh up to the point where Run would serve it.
func newMesh(t *testing.T, progress *bytes.Buffer) (*Mesh, listeners) {
	t.Helper()
	dir := t.TempDir()
	m, err := New(Config{
		RunDir: dir, DataDir: filepath.Join(dir, "data"), ProxyBinary: "/bin/true",
		PrometheusAddr: "127.0.0.1:0", ControlAddr: "127.0.0.1:0",
	}, IO{Progress: progress})
	if err != nil {
		t.Fatal(err)
	}
	m.net = mesh.MeshNetLast
	if err := m.buildSources(); err != nil {
		t.Fatal(err)
	}
	if err := m.buildStores(); err != nil {
		t.Fatal(err)
	}
	l, err := m.listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m, l
}

// When a component fails the programs go on, and it is said how to go on with
// them.
func TestFailureSaysWhatGoesOn(t *testing.T) {
	var progress bytes.Buffer
	m, l := newMesh(t, &progress)
	livePod(t, m.cfg.RunDir, m.net)
	l.metrics.Close() // so serving it fails
	if err := m.serve(t.Context(), l); err == nil || !strings.Contains(err.Error(), "serve 127.0.0.1") {
		t.Errorf("serve: %v", err)
	}
	if got := progress.String(); !strings.Contains(got, "1 workloads go on: `vitrine up` takes them over, `vitrine down` stops them") {
		t.Errorf("said: %q", got)
	}
}
