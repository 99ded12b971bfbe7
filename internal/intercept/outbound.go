package intercept

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a connection that a program in the case opened.
type Conn struct {
	*net.TCPConn
	OrigDst netip.AddrPort // where the program wanted to go
	Source  netip.AddrPort // the program's end
	// Localhost is set when OrigDst is a loopback address that nothing inside
	// the case listens on: the host's service on that address is meant.
	Localhost bool
}

// Listener gives out the connections that programs in the case open.
type Listener struct {
	conns  chan *Conn
	closed chan struct{}
	once   sync.Once
}

func newListener() *Listener {
	return &Listener{conns: make(chan *Conn), closed: make(chan struct{})}
}

// Accept waits for the next connection, which the caller must close. It returns
// net.ErrClosed when the case is gone.
func (l *Listener) Accept() (*Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *Listener) close() { l.once.Do(func() { close(l.closed) }) }

// drain resets what was accepted and not taken; nobody may be in offer any more.
func (l *Listener) drain() {
	for {
		select {
		case c := <-l.conns:
			reset(c.TCPConn)
		default:
			return
		}
	}
}

// offer waits until somebody takes c.
func (l *Listener) offer(c *Conn) {
	select {
	case l.conns <- c:
	case <-l.closed:
		reset(c.TCPConn)
	}
}

// Outbound is the listener of everything that programs in the case open.
func (c *Case) Outbound() *Listener { return c.outbound }

// listeners are the sockets in the case that P1 made for us.
type listeners struct {
	tcp    []*net.TCPListener
	dnsTCP []*net.TCPListener
	dnsUDP []*net.UDPConn
	udp    []*net.UDPConn
}

// takeListeners takes the descriptors out of p.
func takeListeners(p *packet, kinds []listenerKind) (*listeners, error) {
	l := &listeners{}
	for i, k := range kinds {
		if err := l.take(p, i, k); err != nil {
			l.close()
			p.closeFDs()
			return nil, err
		}
	}
	return l, nil
}

func (l *listeners) take(p *packet, i int, k listenerKind) error {
	fd, err := p.takeFD(i)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "case listener")
	defer f.Close()
	if k.udp() {
		pc, err := net.FilePacketConn(f)
		if err != nil {
			return fmt.Errorf("listener %v: %w", k.address(), err)
		}
		uc, ok := pc.(*net.UDPConn)
		if !ok {
			_ = pc.Close()
			return fmt.Errorf("listener %v is a %T", k.address(), pc)
		}
		if k == listenUDP4 || k == listenUDP6 {
			l.udp = append(l.udp, uc)
		} else {
			l.dnsUDP = append(l.dnsUDP, uc)
		}
		return nil
	}
	nl, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("listener %v: %w", k.address(), err)
	}
	tl, ok := nl.(*net.TCPListener)
	if !ok {
		nl.Close()
		return fmt.Errorf("listener %v is a %T", k.address(), nl)
	}
	if k == listenTCP4 || k == listenTCP6 {
		l.tcp = append(l.tcp, tl)
	} else {
		l.dnsTCP = append(l.dnsTCP, tl)
	}
	return nil
}

func (l *listeners) close() {
	for _, t := range l.tcp {
		_ = t.Close()
	}
	for _, t := range l.dnsTCP {
		_ = t.Close()
	}
	for _, u := range l.dnsUDP {
		_ = u.Close()
	}
	for _, u := range l.udp {
		_ = u.Close()
	}
}

// acceptLoop accepts until the listener is closed.
func (c *Case) acceptLoop(ctx context.Context, l *net.TCPListener) {
	var relays sync.WaitGroup
	defer relays.Wait()
	failed := 0 // times in a row
	for {
		tc, err := l.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return
			}
			// Out of descriptors or memory: connections wait in the backlog.
			if failed++; failed == 1 {
				c.log.Warn("connections of the case cannot be accepted", "error", err)
			}
			if !sleep(ctx, 50*time.Millisecond) {
				return
			}
			continue
		}
		if failed > 0 {
			c.log.Info("connections of the case are accepted again", "tries", failed)
			failed = 0
		}
		conn, err := classify(tc)
		switch {
		case err != nil:
			c.log.Debug("connection without original destination", "error", err)
			reset(tc)
		case !conn.Localhost:
			c.outbound.offer(conn)
		default:
			// A look into the case may take a while, and must not hold up the rest.
			relays.Go(func() { c.offerLocalhost(ctx, conn) })
		}
	}
}

// classify finds the original destination. A connection that came by redirect has
// our own port as local address and the original one in conntrack; one that came
// by tproxy has the original one as its local address.
func classify(tc *net.TCPConn) (*Conn, error) {
	local, remote := addrPort(tc.LocalAddr()), addrPort(tc.RemoteAddr())
	conn := &Conn{TCPConn: tc, Source: remote}
	if local.Port() != portOutbound || !local.Addr().IsLoopback() {
		conn.OrigDst, conn.Localhost = local, true
		return conn, nil
	}
	dst, err := originalDst(tc, local.Addr().Is6())
	if err != nil {
		return nil, err
	}
	// Somebody in the case called our own port: taking it would be a loop.
	if dst.Addr().IsLoopback() {
		return nil, fmt.Errorf("%v was called directly", dst)
	}
	conn.OrigDst = dst
	return conn, nil
}

// originalDst asks conntrack for the destination before redirection
// (SO_ORIGINAL_DST of both families).
func originalDst(tc *net.TCPConn, ipv6 bool) (dst netip.AddrPort, err error) {
	rc, err := tc.SyscallConn()
	if err != nil {
		return dst, fmt.Errorf("original destination: %w", err)
	}
	cerr := rc.Control(func(fd uintptr) {
		if ipv6 {
			var info *unix.IPv6MTUInfo // begins with a sockaddr_in6, as the answer does
			info, err = unix.GetsockoptIPv6MTUInfo(int(fd), unix.SOL_IPV6, 80)
			if err == nil {
				p := info.Addr.Port
				dst = netip.AddrPortFrom(netip.AddrFrom16(info.Addr.Addr), p<<8|p>>8)
			}
			return
		}
		var req *unix.IPv6Mreq // is large enough for the sockaddr_in of the answer
		req, err = unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST)
		if err == nil {
			a := req.Multiaddr
			dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(a[4:8])), uint16(a[2])<<8|uint16(a[3]))
		}
	})
	if err = errors.Join(err, cerr); err != nil {
		return dst, fmt.Errorf("original destination: %w", err)
	}
	return dst, nil
}

// offerLocalhost hands over a connection to a loopback port, unless a program in
// the case does listen there: then it is relayed. The rules cannot see a listener
// when the caller uses a port again that is still in TIME_WAIT. And the name
// localhost has two addresses: a caller who is refused by one tries the other, but
// this one was accepted already, so that is done for it.
func (c *Case) offerLocalhost(ctx context.Context, conn *Conn) {
	targets := []netip.AddrPort{conn.OrigDst}
	switch port := conn.OrigDst.Port(); {
	case conn.OrigDst.Addr() == netip.IPv6Loopback():
		targets = append(targets, netip.AddrPortFrom(ipv4Loopback(), port))
	case conn.OrigDst.Addr() == ipv4Loopback() && c.listenersHaveIPv6():
		targets = append(targets, netip.AddrPortFrom(netip.IPv6Loopback(), port))
	}
	for _, target := range targets {
		if program, err := c.dialTarget(ctx, target, netip.Addr{}); err == nil {
			relay(ctx, conn.TCPConn, program)
			return
		}
	}
	c.outbound.offer(conn)
}

func ipv4Loopback() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 1}) }

// relay copies both ways until both sides have ended or ctx is done.
func relay(ctx context.Context, a, b *net.TCPConn) {
	stop := context.AfterFunc(ctx, func() { reset(a); reset(b) })
	defer stop()
	var wg sync.WaitGroup
	pipe := func(dst, src *net.TCPConn) {
		if _, err := io.Copy(dst, src); err != nil {
			reset(dst)
			reset(src)
			return
		}
		_ = dst.CloseWrite()
	}
	wg.Go(func() { pipe(a, b) })
	wg.Go(func() { pipe(b, a) })
	wg.Wait()
	_ = a.Close()
	_ = b.Close()
}

// reset closes c so that the program sees a reset and not an orderly end.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

func addrPort(a net.Addr) netip.AddrPort {
	ta, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := ta.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// sleep waits; false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
