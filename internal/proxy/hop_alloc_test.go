//go:build !race

package proxy

import "testing"

// TestHopDoesNotAllocate holds the whole hop, with client and origin in the
// same process, to no allocation per request in the steady state.
func TestHopDoesNotAllocate(t *testing.T) {
	for _, dir := range []string{"outbound", "inbound"} {
		t.Run(dir, func(t *testing.T) {
			h := startKilobyte(t, dir)
			trip := roundTripper(t, h)
			for range 200 {
				trip()
			}
			if got := testing.AllocsPerRun(2000, trip); got != 0 {
				t.Errorf("%v allocations per request, want 0", got)
			}
		})
	}
}
