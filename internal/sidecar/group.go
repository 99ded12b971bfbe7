package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
)

// errPartEnded says that a part ended before it was told to: group.stop says which
// and why.
var errPartEnded = errors.New("a part of the process ended")

// group runs the parts of the process: each in a goroutine of its own, ended
// one after the other in the reverse order of their start, so that a part can
// rely on those before it for its whole life.
type group struct {
	log    *slog.Logger
	parts  []*part
	failed chan struct{} // closed by the first part that ends before it is told to
	once   sync.Once
	cause  error // see stop

	stopping atomic.Bool // from now on a part may end before it is told to
}

type part struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
	err    error // written before done is closed
}

func newGroup(log *slog.Logger) *group {
	return &group{log: log, failed: make(chan struct{})}
}

// start adds a running part. ctx carries no end: stop ends the part.
func (g *group) start(ctx context.Context, name string, run func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := &part{name: name, cancel: cancel, done: make(chan struct{})}
	g.parts = append(g.parts, p)
	go func() {
		defer close(p.done)
		err := run(ctx)
		if ctx.Err() != nil || g.stopping.Load() {
			if err != nil && !errors.Is(err, context.Canceled) {
				p.err = fmt.Errorf("%s: %w", name, err)
			}
			return
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		p.err = fmt.Errorf("%s: %w", name, err)
		g.once.Do(func() { close(g.failed) })
	}()
}

// stopFrom ends the part with the given name and all parts that were started
// after it, last first. "" means all.
func (g *group) stopFrom(name string) {
	g.stopping.Store(true)
	for i, p := range slices.Backward(g.parts) {
		p.cancel()
		<-p.done
		if p.err != nil {
			g.log.Warn("a part of the process failed", "part", p.name, "error", p.err)
			g.cause = p.err
		}
		g.parts = g.parts[:i]
		if p.name == name {
			break
		}
	}
}

// stop ends all parts. The error is that of the part which was started first among
// those that failed: the others relied on it, and most likely failed for that.
func (g *group) stop() error {
	g.stopFrom("")
	return g.cause
}
