package loopback_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/loopback"
)

func TestGuard(t *testing.T) {
	self := netip.MustParseAddr("10.77.0.5")
	h := loopback.Guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), self)
	for _, tc := range []struct {
		method, host, origin, site string
		want                       int
	}{
		{"GET", "localhost", "", "", 200},
		{"GET", "LOCALHOST.:9090", "", "", 200},
		{"GET", "mesh.localhost:9090", "", "", 200},
		{"GET", "127.0.0.1:9090", "", "", 200},
		{"GET", "127.77.0.5", "", "", 200},
		{"GET", "[::1]:9090", "", "", 200},
		{"GET", "[::ffff:127.0.0.1]:9090", "", "", 200},
		{"GET", "10.77.0.5:15000", "", "", 200},
		{"GET", "127.0.0.1:9090", "http://evil.example", "cross-site", 200}, // CORS keeps the answer from the page
		{"POST", "127.0.0.1:9090", "", "", 200},
		{"POST", "127.0.0.1:9090", "http://127.0.0.1:9090", "", 200},
		{"POST", "127.0.0.1:9090", "", "same-origin", 200},

		{"GET", "", "", "", 403},
		{"GET", "evil.example:9090", "", "", 403},
		{"GET", "127.0.0.1.evil.example", "", "", 403},
		{"GET", "notlocalhost", "", "", 403},
		{"GET", "10.77.0.6", "", "", 403},
		{"GET", "0.0.0.0:9090", "", "", 403},
		{"GET", "host.docker.internal:9090", "", "", 403},                   // whoever answers DNS may say that it is here
		{"POST", "evil.example", "http://evil.example", "same-origin", 403}, // rebinding
		{"POST", "127.0.0.1:9090", "http://evil.example", "", 403},
		{"POST", "127.0.0.1:9090", "", "cross-site", 403},
		{"DELETE", "127.0.0.1:9090", "http://evil.example", "cross-site", 403},
	} {
		r := httptest.NewRequestWithContext(t.Context(), tc.method, "/api/v1/query", nil)
		r.Host = tc.host
		if tc.origin != "" {
			r.Header.Set("Origin", tc.origin)
		}
		if tc.site != "" {
			r.Header.Set("Sec-Fetch-Site", tc.site)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tc.want {
			t.Errorf("%s host %q, origin %q, site %q: status %d, want %d", tc.method, tc.host, tc.origin, tc.site, w.Code, tc.want)
		}
	}
}

// TestGuardSaysWhatToDo: who set up a client wrongly learns how it is right.
func TestGuardSaysWhatToDo(t *testing.T) {
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/api/v1/query", nil)
	r.Host = "host.docker.internal:9090"
	w := httptest.NewRecorder()
	loopback.Guard(http.NotFoundHandler()).ServeHTTP(w, r)
	for _, want := range []string{"host host.docker.internal:9090 is not a name of this machine", "ask for localhost", "--network=host"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %q in %q", want, w.Body)
		}
	}
}
