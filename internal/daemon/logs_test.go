package daemon

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// TestLogPrefixes: lines are prefixed if they may come of several containers: of one
// container of several pods, too, and of pods that are gone.
func TestLogPrefixes(t *testing.T) {
	var progress bytes.Buffer
	m := idle(t, &progress)
	logged := func(name, container, line string) {
		t.Helper()
		dir := filepath.Join(m.cfg.DataDir, "logs", "shop", name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(pod.LogPath(dir, container), []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	prepared := func(set string) string {
		t.Helper()
		w, _, err := m.local.Prepare(mesh.WorkloadSet{Namespace: "shop", Name: set, Containers: []mesh.Container{{Name: set, Args: []string{"x"}}}})
		if err != nil {
			t.Fatal(err)
		}
		logged(w.Name, pod.ProxyContainer, "proxy of "+set)
		return w.Name
	}
	one := prepared("one")
	two := []string{prepared("two"), prepared("two")}
	if two[1] < two[0] {
		two[0], two[1] = two[1], two[0]
	}
	logged("gone-1", "a", "says a")
	logged("gone-1", "b", "says b")
	logged("gone-2", "a", "says a too")
	for query, want := range map[string]string{
		"target=one&container=istio-proxy":            "proxy of one\n",
		"target=" + two[0] + "&container=istio-proxy": "proxy of two\n",
		"target=two&container=istio-proxy":            "[" + two[0] + " istio-proxy] proxy of two\n[" + two[1] + " istio-proxy] proxy of two\n",
		"container=istio-proxy": "[" + one + " istio-proxy] proxy of one\n" +
			"[" + two[0] + " istio-proxy] proxy of two\n[" + two[1] + " istio-proxy] proxy of two\n",
		"target=gone-1":             "[gone-1 a] says a\n[gone-1 b] says b\n",
		"target=gone-1&container=a": "says a\n",
		"target=gone-2":             "says a too\n",
	} {
		answer := httptest.NewRecorder()
		m.controlHandler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/logs?tail=-1&"+query, nil))
		if got := answer.Body.String(); got != want {
			t.Errorf("logs of %s: %q, want %q", query, got, want)
		}
	}
}
