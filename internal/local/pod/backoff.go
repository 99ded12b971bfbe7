package pod

import "time"

// The kubelet's back-off of crashing containers
// (kubernetes pkg/kubelet/kubelet.go: backOffPeriod, MaxContainerBackOff).
const (
	backoffInitial = 10 * time.Second
	backoffMax     = 5 * time.Minute
)

// Backoff spaces the restarts of one thing that keeps ending: at once, then
// after 10 s, doubling to 5 minutes, as the kubelet does. It starts anew when
// the thing ran for twice the longest delay. The zero value is ready for use.
type Backoff struct {
	delay time.Duration // before the restart after the next one
	last  time.Time     // of the latest restart
}

// Next returns how long to wait, from the given end, before the next start.
func (b *Backoff) Next(ended time.Time) time.Duration {
	if b.delay == 0 || ended.Sub(b.last) > 2*backoffMax {
		b.delay, b.last = backoffInitial, ended
		return 0
	}
	d := b.delay
	b.delay = min(2*d, backoffMax)
	b.last = ended.Add(d)
	return d
}
