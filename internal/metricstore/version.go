package metricstore

import (
	"fmt"
	"runtime/debug"
)

const engineModule = "github.com/prometheus/prometheus"

// engineVersion is the version of the embedded Prometheus, by which clients such
// as Grafana judge what the API can do; "" if the binary does not tell. Module
// v0.MMmm.p is release MM.mm.p of Prometheus, with two digits for the minor
// version (its RELEASE.md).
func engineVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, d := range info.Deps {
		if d.Path == engineModule {
			return releaseOf(d.Version)
		}
	}
	return ""
}

func releaseOf(module string) string {
	var minor, patch int
	if _, err := fmt.Sscanf(module, "v0.%d.%d", &minor, &patch); err != nil || minor < 300 {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", minor/100, minor%100, patch)
}
