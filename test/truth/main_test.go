// Package truth holds the mesh's counters against ledgers. A load writes down
// what it asked and was answered, servers write down what they were asked and
// how it ended, both without knowing of the mesh; the counters of the proxies
// on both sides, and what the store answers, must say the same to the request.
//
// There is no tolerance in these tests. What the store is asked is
//
//	sum by (LABELS) (increase(METRIC[1h] anchored))
//
// anchored, so that nothing is extrapolated; over all time, so that programs
// that have ended count; each series from zero, since its creation time is
// stored as a sample of value 0. In a mesh that is younger than the window this
// is exactly the number of requests, once every proxy has been scraped since
// the last of them ended.
package truth

import (
	"os"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/meshtest"
)

var bin meshtest.Binaries

func TestMain(m *testing.M) {
	os.Exit(meshtest.Main(m, &bin, "./test/truth/origin", "./test/truth/load"))
}
