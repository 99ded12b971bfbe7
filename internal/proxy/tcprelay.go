package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/telemetry"
	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

// When a direction moves to splice(2), and back. Splicing saves two copies per
// byte but costs more system calls per message, so it pays for bulk only
// (reference: measured, splice is slower below some 16 KiB a read).
const (
	bulkRead   = 16 << 10    // a read of this size or more counts as bulk
	bulkReads  = 8           // so many in a row start splicing
	spliceMax  = 4 << 20     // bytes of one splice call: how late the counters may be …
	spliceTime = time.Second // … or how long
	spliceMin  = 256 << 10   // moved in spliceTime at least, otherwise back to copying
)

// tunnel is what relay reports.
type tunnel struct {
	sent     uint64 // bytes to the client
	received uint64 // bytes from the client
}

// relay copies bytes both ways between the client and up until both sides have
// ended, passing on the end of each direction by itself. First it writes what
// is in c.in to up, and what is in fromUp to the client. live, if not nil, is
// called with what was moved since its last call, in either direction; it may
// be called from two goroutines. Both connections are closed by the caller; if
// one was reset, closing resets the other.
// It serves opaque connections, upgrades (101) and CONNECT.
func (c *conn) relay(ctx context.Context, up net.Conn, fromUp []byte, live func(sent, received uint64)) tunnel {
	var upStream upstream.Stream
	upStream.Init(up)
	r := &relaying{
		idleLimit: c.p.o.TCPIdleTimeout, halfLimit: c.p.o.HalfCloseTimeout, forced: &c.watch.forced,
	}
	r.active.Store(telemetry.Now())
	var t tunnel
	toUp := &direction{r: r, src: &c.down, dst: up, moved: func(n uint64) {
		t.received += n
		if live != nil {
			live(0, n)
		}
	}}
	toClient := &direction{r: r, src: &upStream, dst: c.nc, moved: func(n uint64) {
		t.sent += n
		if live != nil {
			live(n, 0)
		}
	}}
	toUp.other, toClient.other = toClient, toUp
	stop := context.AfterFunc(ctx, func() { r.abort(c.nc, up) })
	defer stop()

	var wg sync.WaitGroup
	wg.Go(func() { toClient.run(fromUp) })
	// What is in c.in has been read from the client, but not yet counted.
	toUp.run(c.in.Bytes())
	wg.Wait()
	c.in.Release()
	if r.broken.Load() {
		resetOnClose(c.nc)
		resetOnClose(up)
	}
	return t
}

// relaying is what the two directions of one relay share.
type relaying struct {
	idleLimit, halfLimit time.Duration
	forced               *atomic.Bool // the connection was closed from outside

	active atomic.Int64 // telemetry.Now() of the last byte in either direction
	half   atomic.Bool  // one direction has ended
	broken atomic.Bool  // something else than an orderly end happened: both are reset when closed
	stop   atomic.Bool  // both directions shall end now
}

// abort ends both directions now.
func (r *relaying) abort(client, up net.Conn) {
	r.broken.Store(true)
	r.stop.Store(true)
	past := time.Unix(1, 0)
	_ = client.SetDeadline(past) // fails only when closed, as do those below
	_ = up.SetDeadline(past)
}

// limit is how long no byte may move in the present state.
func (r *relaying) limit() time.Duration {
	if r.half.Load() {
		return r.halfLimit
	}
	return r.idleLimit
}

// expired reports whether a deadline that passed ends the relay. If not, the
// caller sets the next one.
func (r *relaying) expired() bool {
	if r.stop.Load() || r.forced.Load() {
		return true
	}
	return telemetry.Now()-r.active.Load() >= int64(r.limit())
}

// direction copies from src to dst.
type direction struct {
	r     *relaying
	src   *upstream.Stream
	dst   net.Conn
	other *direction
	moved func(n uint64)

	deadline int64 // telemetry.Now() scale: up to when reads and writes are allowed at present
}

// run copies first, then src, until src ends. It passes on the end.
func (d *direction) run(first []byte) {
	err := d.write(first)
	if err == nil {
		err = d.copy()
	}
	if errors.Is(err, io.EOF) {
		half, ok := d.dst.(interface{ CloseWrite() error })
		if ok && half.CloseWrite() == nil {
			// The other direction goes on, under the limit for half-closed
			// connections: it looks at its deadline anew.
			d.r.active.Store(telemetry.Now())
			d.r.half.Store(true)
			d.other.wake(time.Now())
			return
		}
	}
	d.r.broken.Store(true)
	if goneFor(err) {
		// What the destination sent before it went is still to be delivered;
		// reading from it ends by itself, as its socket is dead both ways.
		return
	}
	d.r.stop.Store(true)
	d.other.wake(time.Now())
}

// goneFor reports whether err says that the destination of a write has closed.
func goneFor(err error) bool {
	var op *net.OpError
	return errors.Is(err, syscall.EPIPE) || errors.As(err, &op) && op.Op == "write" && !op.Timeout()
}

// wake makes a blocked read of d look at the state again.
func (d *direction) wake(at time.Time) {
	_ = d.src.NetConn().SetReadDeadline(at) // fails only when closed, which also wakes it
}

// copy moves bytes until src ends; at an orderly end it returns io.EOF.
func (d *direction) copy() error {
	var buf upstream.Buffer
	defer buf.Release()
	bulk := 0
	for {
		d.arm()
		n, err := d.src.Read(&buf, nil)
		switch {
		case n > 0:
		case err == nil:
			continue
		case !errors.Is(err, os.ErrDeadlineExceeded) || d.r.expired():
			return err
		default:
			d.deadline = 0
			continue
		}
		full := len(buf.Free()) == 0
		if err := d.write(buf.Bytes()); err != nil {
			return err
		}
		buf.Skip(n)
		if full {
			buf.TakeLarge() // more than a buffer was waiting
		}
		if bulk++; n < bulkRead {
			bulk = 0
		}
		if bulk >= bulkReads {
			bulk = 0
			buf.Release()
			if err := d.splice(); err != nil {
				return err
			}
		}
	}
}

// arm sets the deadlines of the next read and write, but not for every message:
// when they are due, expired looks at what has moved since.
func (d *direction) arm() {
	now := telemetry.Now()
	if d.deadline > now {
		return
	}
	limit := d.r.limit()
	left := limit - time.Duration(now-d.r.active.Load())
	d.deadline = now + int64(left)
	at := time.Now().Add(left)
	// The order matters: who wakes this direction first changes the state and
	// then the deadline, so either the state seen here is the new one, or its
	// deadline comes after this.
	_ = d.src.NetConn().SetReadDeadline(at)                     // fails only when closed, which the read reports
	_ = d.dst.SetWriteDeadline(time.Now().Add(limit + limit/2)) // a reader that stopped for good
	if d.r.stop.Load() || d.r.forced.Load() || d.r.limit() != limit {
		d.wake(time.Now())
	}
}

// write writes all of p and accounts for it.
func (d *direction) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	n, err := d.dst.Write(p)
	if n > 0 {
		d.r.active.Store(telemetry.Now())
		d.moved(uint64(n))
	}
	return err
}

// splice moves bytes inside the kernel while there are many. It returns nil when
// copying should go on, io.EOF at the end of src.
func (d *direction) splice() error {
	src, ok := d.src.NetConn().(*net.TCPConn)
	if !ok {
		return nil
	}
	dst, ok := d.dst.(*net.TCPConn)
	if !ok {
		return nil
	}
	for {
		d.deadline = 0
		now := time.Now()
		limit := d.r.limit()
		stuck := now.Add(limit + limit/2)
		_ = src.SetReadDeadline(now.Add(spliceTime)) // fails only when closed, which the read reports
		_ = dst.SetWriteDeadline(stuck)              // as above
		if d.r.forced.Load() || d.r.stop.Load() {
			return os.ErrDeadlineExceeded
		}
		lr := io.LimitedReader{R: src, N: spliceMax}
		n, err := dst.ReadFrom(&lr)
		if n > 0 {
			d.r.active.Store(telemetry.Now())
			d.moved(uint64(n))
		}
		switch {
		case err == nil && n < spliceMax:
			return io.EOF
		case errors.Is(err, os.ErrDeadlineExceeded):
			if !time.Now().Before(stuck) {
				return err // what is in the pipe is lost
			}
			if n < spliceMin {
				return nil
			}
		case err != nil:
			return err
		}
	}
}
