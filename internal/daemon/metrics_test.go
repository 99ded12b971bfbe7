package daemon

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What the control plane's metrics say of its version is that of the binary.
func TestMetricsTellTheVersion(t *testing.T) {
	m := serving(t)
	answer := httptest.NewRecorder()
	m.metricsHandler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	for _, want := range []string{`istio_build{component="pilot",tag="1.2.3"} 1`, `pilot_xds{version="1.2.3"} 0`} {
		if !strings.Contains(answer.Body.String(), want+"\n") {
			t.Errorf("metrics lack %q:\n%s", want, answer.Body)
		}
	}
}
