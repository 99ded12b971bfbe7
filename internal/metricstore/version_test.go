package metricstore

import (
	"strings"
	"testing"
)

func TestReleaseOf(t *testing.T) {
	for module, want := range map[string]string{
		"v0.315.0":                           "3.15.0",
		"v0.307.3":                           "3.7.3",
		"v0.315.1-0.20260101000000-abcdef01": "3.15.1",
		"v0.55.1":                            "", // of Prometheus 2
		"(devel)":                            "",
		"":                                   "",
	} {
		if got := releaseOf(module); got != want {
			t.Errorf("release of module %q: %q, want %q", module, got, want)
		}
	}
	// Not every test binary knows its modules; that of the product does, which a story tells.
	if got := engineVersion(); got != "" && !strings.HasPrefix(got, "3.") {
		t.Errorf("engine version %q", got)
	}
}
