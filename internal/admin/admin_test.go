package admin

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// textMetrics is a fixed exposition.
type textMetrics string

func (m textMetrics) WriteText(w io.Writer) error {
	_, err := io.WriteString(w, string(m))
	return err
}

func (m textMetrics) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, string(m))
}

func self() mesh.Workload {
	return mesh.Workload{
		Name: "cart-v1-1", Namespace: "shop", Owner: "cart-v1", ServiceAccount: "cart",
		Labels: map[string]string{"app": "cart"},
		IP:     mesh.IP(77, 5), CaseIP: mesh.CaseIP4(5), CaseIP6: mesh.CaseIP6(5),
	}
}

func newServer(t *testing.T, edit func(*Options)) *Server {
	t.Helper()
	m := textMetrics("# TYPE a_total counter\na_total 1\n")
	o := Options{Self: self(), Version: "1.2.3", Metrics: m, Scrape: m, Readiness: NewReadiness()}
	if edit != nil {
		edit(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// do sends one request to h and returns status and body.
func do(h http.Handler, method, url string, header ...string) (int, string) {
	req := httptest.NewRequest(method, url, nil)
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w.Code, w.Body.String()
}

func TestHostCheck(t *testing.T) {
	s := newServer(t, nil)
	for host, want := range map[string]int{
		"localhost": 200, "localhost:15000": 200, "LOCALHOST.": 200, "cart.localhost:15000": 200,
		"127.0.0.1:15000": 200, "127.77.0.5:15000": 200, "[::1]:15000": 200, "::1": 200,
		"[::ffff:127.0.0.1]:15000": 200, "10.77.0.5:15000": 200, "[fd77::5]:15000": 200,
		"evil.example": 403, "localhost.evil.example:15000": 403, "127.0.0.1.evil.example": 403,
		"10.77.0.6": 403, "192.168.1.1:15000": 403, "": 403, "0.0.0.0:15000": 403, "notlocalhost": 403,
	} {
		if code, _ := do(s, "GET", "/ready", "Host", host); code != want {
			t.Errorf("host %q: status %d, want %d", host, code, want)
		}
	}
}

func TestMethods(t *testing.T) {
	quits := 0
	s := newServer(t, func(o *Options) { o.Quit = func() { quits++ } })
	for _, tc := range []struct {
		method, path string
		header       []string
		want         int
	}{
		{"GET", "/quitquitquit", nil, 405},
		{"HEAD", "/quitquitquit", nil, 405},
		{"GET", "/healthcheck/fail", nil, 405},
		{"GET", "/logging", nil, 405},
		{"POST", "/ready", nil, 405},
		{"DELETE", "/stats", nil, 405},
		{"GET", "/nothing", nil, 404},
		{"POST", "/quitquitquit", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"POST", "/quitquitquit", []string{"Origin", "http://evil.example"}, 403},
		{"POST", "/healthcheck/fail", nil, 501},
	} {
		header := append([]string{"Host", "localhost"}, tc.header...)
		if code, _ := do(s, tc.method, tc.path, header...); code != tc.want {
			t.Errorf("%s %s: status %d, want %d", tc.method, tc.path, code, tc.want)
		}
	}
	if quits != 0 {
		t.Fatal("a refused request ended the process")
	}
	if code, body := do(s, "POST", "/quitquitquit", "Host", "localhost"); code != 200 || body != "OK\n" || quits != 1 {
		t.Errorf("quitquitquit: %d %q, asked %d times", code, body, quits)
	}
}

func TestReadiness(t *testing.T) {
	r := NewReadiness("configuration", "program")
	s := newServer(t, func(o *Options) { o.Readiness = r })
	check := func(wantCode int, wantHealth, wantReady string) {
		t.Helper()
		for name, h := range map[string]http.Handler{"agent": s.AgentHandler(), "health": s.HealthHandler()} {
			if code, body := do(h, "GET", "/healthz/ready", "Host", "localhost:15021"); code != wantCode || body != wantHealth {
				t.Errorf("%s: %d %q, want %d %q", name, code, body, wantCode, wantHealth)
			}
		}
		if code, body := do(s, "GET", "/ready", "Host", "localhost"); code != wantCode || body != wantReady {
			t.Errorf("/ready: %d %q, want %d %q", code, body, wantCode, wantReady)
		}
	}
	check(503, "not ready: waiting for configuration, program\n", "INITIALIZING\nwaiting for configuration\nwaiting for program\n")
	r.Add("program")
	r.Done("configuration")
	r.Done("never added")
	check(503, "not ready: waiting for program\n", "INITIALIZING\nwaiting for program\n")
	r.Done("program")
	check(200, "ready\n", "LIVE\n")
	r.Add("program")
	check(503, "not ready: waiting for program\n", "INITIALIZING\nwaiting for program\n")
	r.Done("program")
	r.Fail(true)
	check(503, "not ready: draining\n", "DRAINING\n")
	r.Fail(false)
	check(200, "ready\n", "LIVE\n")
	r.Drain()
	r.Fail(false)
	check(503, "not ready: draining\n", "DRAINING\n")
}

func TestPorts(t *testing.T) {
	s := newServer(t, nil)
	for _, tc := range []struct {
		name string
		h    http.Handler
		path string
		want int
	}{
		{"agent", s.AgentHandler(), "/stats/prometheus", 200},
		{"agent", s.AgentHandler(), "/metrics", 200},
		{"agent", s.AgentHandler(), "/config_dump", 404},
		{"stats", s.StatsHandler(), "/stats/prometheus", 200},
		{"stats", s.StatsHandler(), "/healthz/ready", 404},
		{"health", s.HealthHandler(), "/stats/prometheus", 404},
	} {
		code, body := do(tc.h, "GET", tc.path, "Host", "127.77.0.5")
		if code != tc.want || code == 200 && !strings.Contains(body, "a_total 1\n") {
			t.Errorf("%s %s: %d %q, want %d", tc.name, tc.path, code, body, tc.want)
		}
		// A page of a name that resolves to this address reads nothing.
		if code, body := do(tc.h, "GET", tc.path, "Host", "evil.example"); code != 403 || strings.Contains(body, "a_total") {
			t.Errorf("%s %s for evil.example: %d %q, want 403", tc.name, tc.path, code, body)
		}
	}
}
