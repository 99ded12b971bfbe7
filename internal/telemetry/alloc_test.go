//go:build !race

package telemetry

import (
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// TestAllocations holds the hot path to no allocation at all. (The race detector
// makes sync.Pool drop what it is given: with it there is nothing to hold.)
func TestAllocations(t *testing.T) {
	r := newRecorder(t, nil)
	e := r.Edge(EdgeKey{Direction: mesh.Inbound})
	for range 2 * defaultAccessLogSize {
		one(r, e, 1, 2_000_000)
	}
	if n := testing.AllocsPerRun(2000, func() { one(r, e, 1, 2_000_000) }); n != 0 {
		t.Errorf("an HTTP request costs %v allocations, want 0", n)
	}
	stream := func() {
		rec := r.Begin(mesh.Inbound, 0)
		rec.Edge, rec.Protocol, rec.Code, rec.GRPCStatus = e, GRPC, 200, 0
		rec.Live()
		rec.AddRequestMessages(1)
		rec.AddResponseMessages(1)
		rec.Finish()
	}
	stream()
	if n := testing.AllocsPerRun(2000, stream); n != 0 {
		t.Errorf("a gRPC request costs %v allocations, want 0", n)
	}
}
