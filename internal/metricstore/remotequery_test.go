package metricstore

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
)

func asRemote(t *testing.T, r *running) *Remote {
	t.Helper()
	_, srv := served(t, r.Handler())
	remote, err := NewRemote(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remote.Close)
	return remote
}

// The API of a remote server is passed on, and nothing else of it.
func TestRemoteHandler(t *testing.T) {
	r := start(t, Options{})
	remote := asRemote(t, r)
	c, srv := served(t, remote.Handler())
	v, _, _, err := c.Query(t.Context(), "vector(3)", time.Now())
	if err != nil || v.(model.Vector)[0].Value != 3 {
		t.Error(v, err)
	}
	if status, _, _ := do(t, srv, "GET", "/metrics"); status != http.StatusNotFound {
		t.Errorf("/metrics: %d", status)
	}
	gone, err := NewRemote("http://127.0.0.1:1/prometheus/")
	if err != nil {
		t.Fatal(err)
	}
	_, srv = served(t, gone.Handler())
	if status, _, body := do(t, srv, "GET", "/api/v1/query?query=up"); status != http.StatusBadGateway || !strings.Contains(body, "does not answer") {
		t.Errorf("no server: %d %s", status, body)
	}
	if _, err := NewRemote("prometheus:9090"); err == nil {
		t.Error("an address without a scheme was accepted")
	}
}

// What changes something at a remote server is not passed on.
func TestRemotePassesOnlyReads(t *testing.T) {
	asked := ""
	far := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked = r.Method + " " + r.URL.Path }))
	t.Cleanup(far.Close)
	remote, err := NewRemote(far.URL + "/prometheus")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remote.Close)
	h := remote.Handler()
	for request, want := range map[string]int{
		"GET /api/v1/query":                          200,
		"POST /api/v1/query_range":                   200,
		"HEAD /api/v1/labels":                        200,
		"GET /api/v1/label/__name__/values":          200,
		"GET /api/v1/status/buildinfo":               200,
		"GET /api/v1/rules":                          200,
		"GET /-/healthy":                             200,
		"GET /-/ready":                               200,
		"POST /-/ready":                              405,
		"POST /api/v1/admin/tsdb/delete_series":      404,
		"PUT /api/v1/admin/tsdb/snapshot":            404,
		"POST /api/v1/write":                         404,
		"POST /api/v1/read":                          404,
		"DELETE /api/v1/series":                      405,
		"PUT /api/v1/query":                          405,
		"POST /api/v1/label/../admin/tsdb/snapshot":  307, // to the path without dots
		"POST /api/v1/label/%2e%2e/values":           404,
		"POST /api/v1/status/..%2fadmin%2ftsdb%2fx":  404,
		"POST /api/v1/notifications/live":            404,
		"POST /-/reload":                             404,
		"GET /api/v1/status/../admin/tsdb/snapshot2": 307,
	} {
		method, path, _ := strings.Cut(request, " ")
		asked = ""
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, nil))
		if w.Code != want {
			t.Errorf("%s: status %d, want %d", request, w.Code, want)
		}
		if passed := method + " /prometheus" + path; want == 200 && asked != passed || want != 200 && asked != "" {
			t.Errorf("%s: the server was asked %q", request, asked)
		}
	}
}
