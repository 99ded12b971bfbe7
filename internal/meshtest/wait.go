package meshtest

import (
	"testing"
	"time"
)

// pollEvery is how often a condition is looked at.
const pollEvery = 50 * time.Millisecond

// Eventually calls try until it returns nil, and fails the test with its last
// error if that takes longer than limit.
func Eventually(tb testing.TB, limit time.Duration, try func() error) {
	tb.Helper()
	deadline := time.NewTimer(limit)
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
			tb.Fatalf("after %s: %v", limit, err)
		case <-tick.C:
		}
	}
}
