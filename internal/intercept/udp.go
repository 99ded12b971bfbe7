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
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxDatagram is the largest UDP payload.
const maxDatagram = 65535

// maxQueued is how many datagrams wait while a flow's sockets are made.
const maxQueued = 32

// flowKey names a UDP flow: a socket of a program and where it sends to.
type flowKey struct{ program, dst netip.AddrPort }

// flow is a pair of sockets: inside, bound to the foreign address and connected
// to the program, so that the kernel gives it all further datagrams of the flow;
// outside, on the host, connected to the destination.
type flow struct {
	key      flowKey
	lastUsed atomic.Int64 // nanoseconds since the relay began

	mu      sync.Mutex // guards what follows
	closed  bool
	queued  [][]byte     // until outside is there
	inside  *net.UDPConn // both nil until the flow is set up
	outside *net.UDPConn
}

// udpRelay passes UDP between the case and the host.
type udpRelay struct {
	c     *Case
	began time.Time
	bufs  sync.Pool
	wg    sync.WaitGroup
	icmp  icmpSender

	mu    sync.Mutex // guards flows
	flows map[flowKey]*flow
}

// serveUDP relays datagrams until ctx is done and the listeners are closed.
func (c *Case) serveUDP(ctx context.Context) {
	if len(c.listeners.udp) == 0 {
		return
	}
	r := &udpRelay{
		c: c, began: time.Now(), flows: map[flowKey]*flow{},
		icmp: icmpSender{c: c, fds: map[socketKind]int{}},
	}
	r.bufs.New = func() any { b := make([]byte, maxDatagram); return &b }
	for _, l := range c.listeners.udp {
		r.wg.Go(func() { r.listen(ctx, l) })
	}
	r.expire(ctx)
	r.closeIdle(0)
	r.wg.Wait()
	r.icmp.close()
}

// listen takes the first datagrams of flows.
func (r *udpRelay) listen(ctx context.Context, l *net.UDPConn) {
	buf := make([]byte, maxDatagram)
	oob := make([]byte, 128)
	for {
		n, oobn, _, src, err := l.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return
			}
			continue
		}
		dst, ok := origDstOf(oob[:oobn])
		if !ok {
			continue
		}
		src = netip.AddrPortFrom(src.Addr().Unmap().WithZone(""), src.Port())
		r.dispatch(ctx, flowKey{src, dst}, append([]byte(nil), buf[:n]...))
	}
}

// dispatch gives a datagram to its flow, and makes the flow if it is new.
func (r *udpRelay) dispatch(ctx context.Context, key flowKey, data []byte) {
	r.mu.Lock()
	f := r.flows[key]
	if f == nil {
		if len(r.flows) >= r.c.cfg.MaxUDPFlows {
			r.evict()
		}
		f = &flow{key: key}
		f.lastUsed.Store(int64(time.Since(r.began)))
		r.flows[key] = f
		if ctx.Err() == nil {
			r.wg.Go(func() { r.run(ctx, f) })
		}
	}
	r.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.outside != nil:
		r.sendOut(ctx, f, data)
	case len(f.queued) < maxQueued:
		f.queued = append(f.queued, data)
	}
}

// run sets up the flow's sockets and copies datagrams until they are closed.
func (r *udpRelay) run(ctx context.Context, f *flow) {
	defer r.remove(f)
	if err := r.open(ctx, f); err != nil {
		r.c.log.Debug("udp flow", "program", f.key.program, "destination", f.key.dst, "error", err)
		r.tell(ctx, f, err)
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { r.pumpOut(ctx, f); f.close() })
	wg.Go(func() { r.pumpIn(ctx, f); f.close() })
	wg.Wait()
}

// open makes both sockets and sends what was queued.
func (r *udpRelay) open(ctx context.Context, f *flow) error {
	if slices.ContainsFunc(r.c.cfg.MeshOnly, func(p netip.Prefix) bool { return p.Contains(f.key.dst.Addr()) }) {
		return errMeshOnly
	}
	outside, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(f.key.dst))
	if err != nil {
		return err
	}
	inside, err := r.openInside(ctx, f.key)
	if err != nil {
		_ = outside.Close()
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		_ = outside.Close()
		_ = inside.Close()
		return net.ErrClosed
	}
	f.inside, f.outside = inside, outside
	for _, data := range f.queued {
		r.sendOut(ctx, f, data)
	}
	f.queued = nil
	return nil
}

// openInside makes the socket in the case that stands for the destination.
func (r *udpRelay) openInside(ctx context.Context, key flowKey) (*net.UDPConn, error) {
	kind := socketUDP4
	if key.dst.Addr().Is6() {
		kind = socketUDP6
	}
	fds, err := r.c.makeSockets(ctx, kind, 1)
	if err != nil {
		return nil, err
	}
	if len(fds) != 1 {
		return nil, fmt.Errorf("the agent made %d sockets", len(fds))
	}
	file := os.NewFile(uintptr(fds[0]), "case udp socket")
	defer file.Close()
	if err := unix.Bind(fds[0], sockaddr(key.dst)); err != nil {
		return nil, fmt.Errorf("bind to %v: %w", key.dst, err)
	}
	if err := unix.Connect(fds[0], sockaddr(key.program)); err != nil {
		return nil, fmt.Errorf("connect to %v: %w", key.program, err)
	}
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	uc, ok := conn.(*net.UDPConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("socket became a %T", conn)
	}
	return uc, nil
}

// tell lets the program know, by the packet that the destination would have sent,
// why its datagrams do not arrive. A connected socket gets it as an error, like
// without us; one that is not connected hears nothing, like without us. The result
// is false if err is not about the destination.
func (r *udpRelay) tell(ctx context.Context, f *flow, err error) bool {
	code, ok := unreachableCode(err, f.key.dst.Addr().Is6())
	if ok {
		r.icmp.unreachable(ctx, f.key, code)
	}
	return ok
}

// sendOut sends a datagram to the destination. The kernel may answer with the
// error of an earlier one instead, so it is asked twice. Datagrams may be lost.
func (r *udpRelay) sendOut(ctx context.Context, f *flow, data []byte) {
	for range 2 {
		_, err := f.outside.Write(data)
		if err == nil || !r.tell(ctx, f, err) {
			return
		}
	}
}

// pumpOut copies what the program sends until a socket is closed, or until the
// program's is gone: then the destination learns it from the host's kernel.
func (r *udpRelay) pumpOut(ctx context.Context, f *flow) {
	gone := false // the last word from the program's end was that nobody is there
	r.pump(f.inside, &gone, func(data []byte, err error) (goOn bool) {
		if gone = errors.Is(err, unix.ECONNREFUSED); err != nil {
			return gone // there may be datagrams of one who came after
		}
		f.lastUsed.Store(int64(time.Since(r.began)))
		r.sendOut(ctx, f, data)
		return true
	})
}

// pumpIn copies what the destination sends until a socket is closed.
func (r *udpRelay) pumpIn(ctx context.Context, f *flow) {
	r.pump(f.outside, new(false), func(data []byte, err error) (goOn bool) {
		if err != nil {
			return r.tell(ctx, f, err) // it says nothing about the next one
		}
		f.lastUsed.Store(int64(time.Since(r.began)))
		if _, err := f.inside.Write(data); errors.Is(err, unix.ECONNREFUSED) {
			_, _ = f.inside.Write(data) // that was the error of an earlier one
		}
		return true
	})
}

// pump gives take each datagram and each error of a socket, until it is closed,
// take wants no more, or, once drain is set, the socket is empty. It takes a buffer
// only when there is something to read, so that silent flows cost none.
func (r *udpRelay) pump(from *net.UDPConn, drain *bool, take func(data []byte, err error) (goOn bool)) {
	rc, err := from.SyscallConn()
	if err != nil {
		return
	}
	for {
		var buf *[]byte
		var n int
		var rerr error
		err := rc.Read(func(fd uintptr) bool {
			buf, _ = r.bufs.Get().(*[]byte)
			for n, rerr = unix.Read(int(fd), *buf); errors.Is(rerr, unix.EINTR); {
				n, rerr = unix.Read(int(fd), *buf)
			}
			if errors.Is(rerr, unix.EAGAIN) {
				r.bufs.Put(buf)
				buf = nil
				return *drain
			}
			return true
		})
		if err != nil || buf == nil {
			return
		}
		goOn := take((*buf)[:max(n, 0)], rerr)
		r.bufs.Put(buf)
		if !goOn {
			return
		}
	}
}

func (f *flow) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.inside != nil {
		_ = f.inside.Close()
		_ = f.outside.Close()
	}
}

func (r *udpRelay) remove(f *flow) {
	f.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flows[f.key] == f {
		delete(r.flows, f.key)
	}
}

// evict removes the flow that was silent longest; mu is held.
func (r *udpRelay) evict() {
	var oldest *flow
	for _, f := range r.flows {
		if oldest == nil || f.lastUsed.Load() < oldest.lastUsed.Load() {
			oldest = f
		}
	}
	if oldest != nil {
		delete(r.flows, oldest.key)
		oldest.close()
	}
}

// expire closes silent flows until ctx is done.
func (r *udpRelay) expire(ctx context.Context) {
	for sleep(ctx, max(r.c.cfg.UDPIdle/4, 10*time.Millisecond)) {
		r.closeIdle(r.c.cfg.UDPIdle)
	}
}

// closeIdle closes the flows that were silent for at least idle.
func (r *udpRelay) closeIdle(idle time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	limit := int64(time.Since(r.began) - idle)
	for key, f := range r.flows {
		if f.lastUsed.Load() <= limit {
			delete(r.flows, key)
			f.close()
		}
	}
}

// origDstOf reads the destination of a datagram that tproxy gave us
// (IP_RECVORIGDSTADDR and its IPv6 twin).
func origDstOf(oob []byte) (netip.AddrPort, bool) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.AddrPort{}, false
	}
	for i := range msgs {
		// The library does not look at the length.
		if h := msgs[i].Header; len(msgs[i].Data) < unix.SizeofSockaddrInet4 ||
			h.Level == unix.SOL_IPV6 && len(msgs[i].Data) < unix.SizeofSockaddrInet6 {
			continue
		}
		sa, err := unix.ParseOrigDstAddr(&msgs[i])
		if err != nil {
			continue
		}
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), true
		case *unix.SockaddrInet6:
			return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), true
		}
	}
	return netip.AddrPort{}, false
}
