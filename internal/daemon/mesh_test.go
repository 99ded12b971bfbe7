package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/manifest"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// newMesh makes a mesh up to the point where Run would serve it.
func newMesh(t *testing.T, progress *bytes.Buffer) (*Mesh, listeners) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "vt-") //nolint:usetesting // short: the paths of Unix sockets are bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m, err := New(Config{
		RunDir: dir, DataDir: filepath.Join(dir, "data"), ProxyBinary: "/bin/true", Version: "1.2.3",
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

// idle is a mesh that nobody serves, until the end of the test.
func idle(t *testing.T, progress *bytes.Buffer) *Mesh {
	t.Helper()
	m, l := newMesh(t, progress)
	l.close()
	t.Cleanup(func() {
		if err := m.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// serving is a mesh that serves until the end of the test.
func serving(t *testing.T) *Mesh {
	t.Helper()
	var progress bytes.Buffer
	m, l := newMesh(t, &progress)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- m.serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-m.Settled()
	return m
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
	if got := progress.String(); !strings.Contains(got, "leaves 1 workload running: "+CommandLine(m.cfg.RunDir, "up")+" takes over what runs, "+CommandLine(m.cfg.RunDir, "down")+" stops it") {
		t.Errorf("said: %q", got)
	}
}

// A web page that reaches the ports of the control plane through a name of its
// own, or sends a form there, gets nothing.
func TestForeignPagesGetNothing(t *testing.T) {
	m := serving(t)
	for _, tc := range []struct {
		method, url, host, origin string
		want                      int
	}{
		{"GET", m.promAddr + "/api/v1/query?query=1", "", "", 200},
		{"GET", m.promAddr + "/api/v1/query?query=1", "evil.example", "", 403},
		{"POST", m.promAddr + "/api/v1/query?query=1", "", "http://evil.example", 403},
		{"GET", m.ctrlAddr + "/metrics", "localhost", "", 200},
		{"GET", m.ctrlAddr + "/metrics", "evil.example", "", 403},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tc.method, "http://"+tc.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Close = true
		if tc.host != "" {
			req.Host = tc.host
		}
		if tc.origin != "" {
			req.Header.Set("Origin", tc.origin)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tc.want {
			t.Errorf("%s %s, host %q, origin %q: status %d, want %d", tc.method, tc.url, tc.host, tc.origin, resp.StatusCode, tc.want)
		}
	}
}

// Objects that are refused change nothing, neither workloads nor services.
func TestRefusedChange(t *testing.T) {
	m := serving(t)
	before := m.objs
	err := m.apply(&manifest.Objects{
		Services: []mesh.Service{{ServiceRef: mesh.ServiceRef{Name: "api", Namespace: "default"}}},
		Sets:     []mesh.WorkloadSet{{Kind: mesh.KindProgram, Name: "api", Namespace: "default"}},
	}, []string{"x"})
	if err == nil || m.objs != before || m.leftOut != nil {
		t.Errorf("%v; objects %p, before %p; left out %q", err, m.objs, before, m.leftOut)
	}
	if err := m.apply(&manifest.Objects{Services: []mesh.Service{{ServiceRef: mesh.ServiceRef{Name: "web", Namespace: "default"}}}}, nil); err != nil {
		t.Error(err)
	}
	for s := range m.plane.Watch(t.Context()) {
		if len(s.Services) == 0 { // of the start
			continue
		}
		if len(s.Services) != 1 || s.Services[0].Name != "web" {
			t.Errorf("services %+v, want web alone", s.Services)
		}
		break
	}
}

// Only workloads of the files can be removed, and names that nobody has are told.
func TestRemove(t *testing.T) {
	m := serving(t)
	objs := &manifest.Objects{Sets: []mesh.WorkloadSet{
		{Kind: mesh.KindJob, Namespace: "shop", Name: "load"}, {Kind: mesh.KindDeployment, Namespace: "shop", Name: "web"},
	}}
	if err := m.apply(objs, nil); err != nil {
		t.Fatal(err)
	}
	if err := m.remove(t.Context(), []string{"web", "nobody"}); err == nil || !strings.Contains(err.Error(), `no workload of the files is called "nobody"`) {
		t.Errorf("remove: %v", err)
	}
	if len(m.objs.Sets) != 2 {
		t.Errorf("sets %+v, want both", m.objs.Sets)
	}
	if err := m.remove(t.Context(), []string{"shop/web"}); err != nil {
		t.Fatal(err)
	}
	if len(m.objs.Sets) != 1 || m.objs.Sets[0].Name != "load" || len(objs.Sets) != 2 {
		t.Errorf("sets %+v, want load alone; before %+v", m.objs.Sets, objs.Sets)
	}
}

// A program of `vitrine run` starts when the snapshot that has it was announced,
// and not before.
func TestAwaitListed(t *testing.T) {
	m := serving(t)
	known := make(chan error, 1)
	go func() { known <- m.awaitListed(t.Context(), "default/client") }()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.awaitListed(gone, "default/client"); err == nil || !strings.Contains(err.Error(), "default/client is announced as new") {
		t.Errorf("a workload that nobody has: %v", err)
	}
	select {
	case err := <-known:
		t.Fatalf("known before it is there: %v", err)
	default:
	}
	m.plane.SetWorkload(mesh.Workload{Namespace: "default", Name: "client", IP: mesh.IP(m.net, 9), CaseIP: mesh.CaseIP4(9)})
	if err := <-known; err != nil {
		t.Error(err)
	}
	version := uint64(0)
	for s := range m.plane.Watch(t.Context()) {
		version = s.Version
		break
	}
	if told, _ := m.announced.get(); told < version {
		t.Errorf("version %d was announced, want %d", told, version)
	}
}

// TestDownTellsFailures: who asks for the end learns that not everything has ended.
func TestDownTellsFailures(t *testing.T) {
	for want, err := range map[string]error{
		"200 {}\n": nil,
		`422 {"error":"stop pods: shop/web-1 may still run"}` + "\n": errors.New("stop pods: shop/web-1 may still run"),
	} {
		m := &Mesh{stop: make(chan struct{}), stopped: make(chan struct{}), stopErr: err}
		close(m.stopped)
		answer := httptest.NewRecorder()
		m.controlHandler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/down", nil))
		if got := fmt.Sprint(answer.Code, " ", answer.Body); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
