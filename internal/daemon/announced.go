package daemon

import (
	"context"
	"sync"
)

// announced is the version of the last snapshot that proxies were told of. The zero
// value is ready for use, by any number of goroutines.
type announced struct {
	mu      sync.Mutex
	version uint64        // guarded by mu
	next    chan struct{} // guarded by mu: closed by the next set; nil while nobody waits
}

func (a *announced) set(version uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version = version
	if a.next != nil {
		close(a.next)
		a.next = nil
	}
}

// get returns the version, and what is closed when there is another one.
func (a *announced) get() (version uint64, next <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next == nil {
		a.next = make(chan struct{})
	}
	return a.version, a.next
}

// await returns when the version is at least the given one, or with ctx's error at
// its end.
func (a *announced) await(ctx context.Context, version uint64) error {
	for {
		now, next := a.get()
		if now >= version {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
