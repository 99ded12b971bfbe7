// Package clients reads a running mesh with the code of Kiali that draws its graph, and
// with Grafana's data source for Prometheus. It is a module of its own, since nothing
// else should ever need what these two need. `make interop` builds and runs it.
package clients

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// mesh is where the test finds what it reads.
type mesh struct {
	prometheus string // base URL of the Prometheus API
	graph      string // file with the answer of `vitrine graph -o json` of the same time
}

var running mesh

func TestMain(m *testing.M) {
	flag.StringVar(&running.prometheus, "prometheus", "", "base URL of the mesh's Prometheus API")
	flag.StringVar(&running.graph, "graph", "", "what `vitrine graph -o json` printed")
	flag.Parse()
	if running.prometheus == "" || running.graph == "" {
		fmt.Fprintln(os.Stderr, "-prometheus and -graph are missing: run this by `make interop`")
		os.Exit(2)
	}
	os.Exit(m.Run())
}
