package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// bindKey tells listeners apart that can be bound at the same time.
type bindKey struct {
	addr    netip.AddrPort
	publish bool
}

// bound is an inbound listener that is open.
type bound struct {
	ln     *net.TCPListener
	key    bindKey
	served bool // guarded by Proxy.mu; accept closes the listener then

	retired atomic.Bool // no longer wanted: see retire
}

// close ends the listener; who accepts from it sees net.ErrClosed.
func (b *bound) close() { _ = b.ln.Close() } // it cannot fail in a way that matters

// SetReady says whether the workload takes traffic: published addresses are
// bound only then. An address that cannot be bound is logged and tried again
// with the next Apply or SetReady.
func (p *Proxy) SetReady(ready bool) {
	p.applying.Lock()
	defer p.applying.Unlock()
	p.mu.Lock()
	p.ready = ready
	p.mu.Unlock()
	if s := p.snap.Load(); s != nil {
		if err := p.rebind(s); err != nil {
			p.o.Log.Error("a published address is not served", "error", err)
		}
	}
	p.nudge()
}

// rebind opens what s wants and is not open, and closes what s does not want.
// On an error nothing has changed. The caller holds p.applying.
func (p *Proxy) rebind(s *snapshot) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	want := map[bindKey]bool{}
	if !p.draining[mesh.Inbound].on.Load() {
		for _, l := range s.inbound {
			if !l.Publish || p.ready {
				want[bindKey{l.Address, l.Publish}] = true
			}
		}
	}
	var fresh []*bound
	for key := range want {
		if p.listeners[key] != nil {
			continue
		}
		ln, err := listen(key)
		if err != nil {
			for _, b := range fresh {
				b.close()
			}
			return fmt.Errorf("listen on %s: %w", key.addr, err)
		}
		fresh = append(fresh, &bound{ln: ln, key: key})
	}
	for _, b := range fresh {
		p.listeners[b.key] = b
	}
	for key, b := range p.listeners {
		if !want[key] {
			p.retire(b)
			delete(p.listeners, key)
		}
	}
	return nil
}

// unbind ends all inbound listeners.
func (p *Proxy) unbind() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, b := range p.listeners {
		p.retire(b)
		delete(p.listeners, key)
	}
}

func listen(key bindKey) (*net.TCPListener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		if !key.publish {
			return nil
		}
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
		return errors.Join(err, failed)
	}}
	lc.SetMultipathTCP(false) // nobody on loopback speaks it, and it takes no filter
	ln, err := lc.Listen(context.Background(), "tcp", key.addr.String())
	if err != nil {
		return nil, err
	}
	return ln.(*net.TCPListener), nil // "tcp" gives nothing else
}

// unserved takes the listeners that nobody accepts from yet.
func (p *Proxy) unserved() []*bound {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*bound
	for _, b := range p.listeners {
		if !b.served {
			b.served = true
			list = append(list, b)
		}
	}
	return list
}

// accept serves one inbound listener until it is retired.
func (p *Proxy) accept(ctx context.Context, serving *sync.WaitGroup, b *bound) {
	defer p.retired(b)
	failed := 0 // times in a row
	for !b.retired.Load() {
		nc, err := b.ln.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return
			}
			if b.retired.Load() {
				break
			}
			if failed++; failed == 1 {
				p.o.Log.Warn("inbound connections cannot be accepted", "address", b.key.addr, "error", err)
			}
			if !pause(ctx, 10*time.Millisecond) { // out of descriptors: leave time to close some
				return
			}
			continue
		}
		if failed > 0 {
			p.o.Log.Info("inbound connections are accepted again", "address", b.key.addr, "tries", failed)
			failed = 0
		}
		p.take(ctx, serving, b, nc)
	}
	if b.key.publish {
		p.takeQueued(ctx, serving, b)
		if err := b.dropHandshakes(); err != nil {
			p.o.Log.Debug("connections to a published address may be reset while it is given up", "address", b.key.addr, "error", err)
		}
		awaitHandshakes(ctx, handshakeLimit, packetsWait)
	}
	p.takeQueued(ctx, serving, b)
}

// admit reports whether one more inbound connection may be open. A client that
// opens too many must not take the descriptors that the rest of the pod needs.
// The log is told when it begins and when there is ample room again.
func (p *Proxy) admit() bool {
	open, limit := int(p.open[mesh.Inbound].Load()), p.o.MaxInbound
	switch {
	case open >= limit:
		p.o.Recorder.ConnectionRefused()
		if p.full.CompareAndSwap(false, true) {
			p.o.Log.Warn("inbound connections are refused, too many are open", "limit", limit)
		}
		return false
	case open < limit-limit/4 && p.full.CompareAndSwap(true, false):
		p.o.Log.Info("inbound connections are accepted again", "open", open)
	}
	return true
}

// take serves a connection that b accepted.
func (p *Proxy) take(ctx context.Context, serving *sync.WaitGroup, b *bound, nc *net.TCPConn) {
	if !p.admit() {
		_ = nc.Close() // it was never used
		return
	}
	source, _ := netip.ParseAddrPort(nc.RemoteAddr().String())
	p.start(ctx, serving, &conn{
		p: p, dir: mesh.Inbound, nc: nc, bound: b.key.addr, local: b.key.addr,
		source: netip.AddrPortFrom(source.Addr().Unmap(), source.Port()),
	})
}

// pause waits for d; it reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
