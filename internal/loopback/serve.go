package loopback

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// End says what becomes of the requests that are under way when serving ends.
type End uint8

const (
	// Finish lets them go on, for grace at most.
	Finish End = iota
	// Cancel ends their contexts, so that streams end at once and short requests
	// still get their answer.
	Cancel
)

// Limits of a client: what it may send before its request is known, and how long
// it may take or keep a connection for nothing.
const (
	headerTimeout  = 10 * time.Second
	maxHeaderBytes = 64 << 10
	idleTimeout    = 2 * time.Minute
	grace          = 2 * time.Second
)

// Serve answers requests on ln by h until ctx ends, and then returns nil, with ln
// closed and no handler running unless it ignores the end of its connection. An
// error means that ln failed before.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, end End) error {
	requests := ctx
	if end == Finish {
		requests = context.WithoutCancel(ctx)
	}
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		BaseContext: func(net.Listener) context.Context { return requests },
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if server.Shutdown(limit) != nil {
			_ = server.Close() // there is nobody left to tell
		}
	})
	err := server.Serve(ln)
	if !stop() {
		<-ended
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", ln.Addr(), err)
}
