package intercept

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	poolSize  = 64 // ready sockets for Dial to IPv4 addresses of the case
	poolSize6 = 4  // and to ::1, which few programs listen on alone
)

// socketPool holds sockets that were made inside the case and are not yet
// connected, so that Dial need not ask P1 first.
type socketPool struct {
	fds  chan int
	want chan struct{} // one token: the pool wants filling
}

func newSocketPool(size int) *socketPool {
	p := &socketPool{fds: make(chan int, size), want: make(chan struct{}, 1)}
	p.want <- struct{}{}
	return p
}

// take waits for a socket. Whoever gets one asks for more: who is about to wait
// may find the sockets of a filling that took the pool for full, and others wait
// behind him.
func (p *socketPool) take(ctx context.Context, gone <-chan struct{}) (int, error) {
	select {
	case fd := <-p.fds:
		p.refill()
		return fd, nil
	default:
	}
	p.refill()
	select {
	case fd := <-p.fds:
		p.refill()
		return fd, nil
	case <-gone:
		return -1, errCaseGone
	case <-ctx.Done():
		return -1, context.Cause(ctx)
	}
}

// refill asks for sockets if few are left. It is called after every taking and
// after every filling: one filling may serve fewer than those who wait.
func (p *socketPool) refill() {
	if len(p.fds) > cap(p.fds)*3/4 {
		return
	}
	select {
	case p.want <- struct{}{}:
	default:
	}
}

// put keeps fd or closes it if the pool is full.
func (p *socketPool) put(fd int) {
	select {
	case p.fds <- fd:
	default:
		_ = unix.Close(fd)
	}
}

func (p *socketPool) close() {
	for {
		select {
		case fd := <-p.fds:
			_ = unix.Close(fd)
		default:
			return
		}
	}
}

// fillPools keeps the pools filled until ctx is done.
func (c *Case) fillPools(ctx context.Context) {
	for {
		var kind socketKind
		select {
		case <-ctx.Done():
			return
		case <-c.pools[socketTCP4].want:
			kind = socketTCP4
		case <-c.pools[socketTCP6].want:
			kind = socketTCP6
		}
		pool := c.pools[kind]
		fds, err := c.makeSockets(ctx, kind, cap(pool.fds)-len(pool.fds))
		for _, fd := range fds {
			pool.put(fd)
		}
		if err == nil {
			pool.refill()
			continue
		}
		if ctx.Err() != nil {
			return
		}
		c.log.Warn("sockets from the agent", "error", err)
		if !sleep(ctx, 100*time.Millisecond) {
			return
		}
		pool.refill()
	}
}

// makeSockets asks P1 for up to n sockets, which the caller owns.
func (c *Case) makeSockets(ctx context.Context, kind socketKind, n int) ([]int, error) {
	type result struct {
		fds []int
		err error
	}
	done := make(chan result, 1)
	err := c.request(&packet{kind: kindSockets, a: int32(kind), b: int32(n)}, func(p packet, err error) {
		if err == nil && p.b != 0 {
			err = fmt.Errorf("make a socket in the case: %w", syscall.Errno(p.b))
		}
		r := result{fds: append([]int(nil), p.fds...), err: err}
		for i := range p.fds {
			p.fds[i] = -1
		}
		done <- r
	})
	if err != nil {
		return nil, err
	}
	select {
	case r := <-done:
		return r.fds, r.err
	case <-ctx.Done():
		go func() { // the answer comes in any case, at the latest when P1 is gone
			for _, fd := range (<-done).fds {
				_ = unix.Close(fd)
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// targetMemory remembers on which address of the case each port was found.
type targetMemory struct {
	mu   sync.Mutex
	last map[uint16]int
}

func (m *targetMemory) get(port uint16) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last[port]
}

func (m *targetMemory) set(port uint16, target int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil {
		m.last = map[uint16]int{}
	}
	m.last[port] = target
}

// Client are the addresses that a program shall see of who connects to it, by
// family. Without one it sees the address that was dialed.
type Client struct{ IP4, IP6 netip.Addr }

// of is the client's address of the family of target.
func (c Client) of(target netip.Addr) netip.Addr {
	if target.Is4() {
		return c.IP4
	}
	return c.IP6
}

// Dial connects to a port of the programs in the case: on the case's own address,
// which is what a program sees as its end of the connection then, on 127.0.0.1, or on
// one of these of IPv6, whichever is served. If nothing listens, the error wraps
// syscall.ECONNREFUSED.
func (c *Case) Dial(ctx context.Context, client Client, port uint16) (*net.TCPConn, error) {
	targets := []netip.Addr{c.cfg.IP4, ipv4Loopback(), c.cfg.IP6, netip.IPv6Loopback()}
	first := c.targets.get(port)
	conn, at, err := c.dialFirst(ctx, client, targets, first, port)
	if err == nil && at != first {
		c.targets.set(port, at)
	}
	return conn, err
}

// DialAt is Dial to what programs have opened to others: on the case's address that
// target names or, if nothing listens there, on that of the other family. Loopback
// addresses are left out.
func (c *Case) DialAt(ctx context.Context, client Client, target netip.AddrPort) (*net.TCPConn, error) {
	targets := []netip.Addr{c.cfg.IP4, c.cfg.IP6}
	first := slices.Index(targets, target.Addr())
	if first < 0 {
		return nil, fmt.Errorf("dial %v: it is no address of the case: %w", target, syscall.EADDRNOTAVAIL)
	}
	conn, _, err := c.dialFirst(ctx, client, targets, first, target.Port())
	return conn, err
}

// dialFirst connects to the first of the targets that is served, beginning with the
// one at first, and says which it was.
func (c *Case) dialFirst(ctx context.Context, client Client, targets []netip.Addr, first int, port uint16) (conn *net.TCPConn, at int, err error) {
	refused := error(syscall.ECONNREFUSED)
	for i := range targets {
		at = (first + i) % len(targets)
		target := targets[at]
		if !target.IsValid() || target.Is6() && !c.listenersHaveIPv6() {
			continue
		}
		conn, err = c.dialTarget(ctx, netip.AddrPortFrom(target, port), client.of(target))
		if err == nil {
			return conn, at, nil
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, 0, err
		}
		refused = err
	}
	return nil, 0, refused
}

func (c *Case) listenersHaveIPv6() bool { return len(c.listeners.tcp) > 1 }

// dialTarget connects to one address inside the case.
func (c *Case) dialTarget(ctx context.Context, target netip.AddrPort, source netip.Addr) (*net.TCPConn, error) {
	fail := func(err error) (*net.TCPConn, error) {
		return nil, fmt.Errorf("dial %v in the case: %w", target, err)
	}
	if p := target.Port(); p == portOutbound || p == portDNS {
		return fail(syscall.ECONNREFUSED) // our own listeners
	}
	kind := socketTCP4
	if target.Addr().Is6() {
		kind = socketTCP6
	}
	fd, err := c.pools[kind].take(ctx, c.done)
	if err != nil {
		return fail(err)
	}
	f := os.NewFile(uintptr(fd), "case socket")
	defer f.Close() // FileConn makes a copy
	if source.IsValid() && !source.IsUnspecified() {
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(source, 0))); err != nil {
			return fail(fmt.Errorf("bind to %v: %w", source, err))
		}
	}
	if err := connect(ctx, f, fd, sockaddr(target)); err != nil {
		return fail(err)
	}
	conn, err := net.FileConn(f)
	if err != nil {
		return fail(err)
	}
	tc, ok := conn.(*net.TCPConn)
	if !ok {
		conn.Close()
		return fail(fmt.Errorf("socket became a %T", conn))
	}
	return tc, nil
}

// connect connects the non-blocking socket fd, which is f's. Over loopback the
// handshake is over when the first connect(2) returns, and the second one only
// collects the result; waiting is for full accept queues.
func connect(ctx context.Context, f *os.File, fd int, sa unix.Sockaddr) error {
	err := unix.Connect(fd, sa)
	for errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.EINTR) {
		err = unix.Connect(fd, sa)
	}
	if !errors.Is(err, unix.EALREADY) {
		return err
	}
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	var result error
	err = rc.Write(func(uintptr) bool {
		result = unix.Connect(fd, sa)
		return !errors.Is(result, unix.EALREADY) && !errors.Is(result, unix.EINPROGRESS)
	})
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return result
}
