package meshtest

import (
	"testing"
	"time"
)

// Patience bounds every wait for what takes seconds at most on an idle machine.
// It only says when a test gives up: a busy machine may take many times as long.
const Patience = 3 * time.Minute

// pollEvery is how often a condition is looked at.
const pollEvery = 50 * time.Millisecond

// Eventually calls try until it returns nil, and fails the test with its last
// error if that takes longer than Patience. try must end by itself.
func Eventually(tb testing.TB, try func() error) {
	tb.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			tb.Fatalf("after %s: %v", Patience, err)
		case <-tick.C:
		}
	}
}
