package intercept

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// socketKind is a kind of unconnected socket that P0 asks P1 for.
type socketKind int32

const (
	socketTCP4 socketKind = iota
	socketTCP6
	socketUDP4
	socketUDP6
	socketRaw4 // sends packets with their IP header, and receives nothing (raw(7))
	socketRaw6
)

func (k socketKind) family() int {
	if k == socketTCP6 || k == socketUDP6 || k == socketRaw6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func (k socketKind) stream() bool { return k == socketTCP4 || k == socketTCP6 }
func (k socketKind) raw() bool    { return k == socketRaw4 || k == socketRaw6 }

// open makes a marked, non-blocking socket in the current network namespace
// that may be bound to any address.
func (k socketKind) open() (int, error) {
	typ, proto := unix.SOCK_DGRAM, 0
	switch {
	case k.stream():
		typ = unix.SOCK_STREAM
	case k.raw():
		typ, proto = unix.SOCK_RAW, unix.IPPROTO_RAW
	}
	fd, err := unix.Socket(k.family(), typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	opts := []sockopt{
		{unix.SOL_SOCKET, unix.SO_MARK, ownMark},
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
	}
	if k.raw() {
		// The packets bring their addresses along.
	} else if k.family() == unix.AF_INET6 {
		opts = append(opts, sockopt{unix.SOL_IPV6, unix.IPV6_V6ONLY, 1}, sockopt{unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1})
	} else {
		opts = append(opts, sockopt{unix.SOL_IP, unix.IP_TRANSPARENT, 1})
	}
	if k.stream() {
		// The port is chosen at connect(2), per destination, so that dialing
		// from one address does not use up its ports.
		opts = append(opts, sockopt{unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1}, sockopt{unix.SOL_TCP, unix.TCP_NODELAY, 1})
	}
	if err := setsockopts(fd, opts); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

type sockopt struct{ level, name, value int }

func setsockopts(fd int, opts []sockopt) error {
	for _, o := range opts {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("setsockopt(%d, %d): %w", o.level, o.name, err)
		}
	}
	return nil
}

// listenerKind is one of the listeners that P1 opens for P0.
type listenerKind int32

const (
	listenTCP4 listenerKind = iota // redirected TCP and localhost fall-through
	listenTCP6
	listenDNSTCP4
	listenDNSTCP6
	listenDNSUDP4
	listenDNSUDP6
	listenUDP4 // first datagrams of UDP flows
	listenUDP6
)

// backlog is the accept queue of our listeners; the kernel caps it at
// net.core.somaxconn.
const backlog = 4096

func (k listenerKind) ipv6() bool {
	return k == listenTCP6 || k == listenDNSTCP6 || k == listenDNSUDP6 || k == listenUDP6
}

func (k listenerKind) udp() bool {
	return k == listenDNSUDP4 || k == listenDNSUDP6 || k == listenUDP4 || k == listenUDP6
}

func (k listenerKind) address() netip.AddrPort {
	addr, port := ipv4Loopback(), uint16(portOutbound)
	if k.ipv6() {
		addr = netip.IPv6Loopback()
	}
	switch k {
	case listenDNSTCP4, listenDNSTCP6, listenDNSUDP4, listenDNSUDP6:
		port = portDNS
	case listenTCP4, listenTCP6, listenUDP4, listenUDP6:
	}
	return netip.AddrPortFrom(addr, port)
}

// open makes and binds the listener in the current network namespace. It is
// bound to the loopback address and not to all, because that is where redirect
// sends packets to, and because replies must come from there.
func (k listenerKind) open() (int, error) {
	sk := socketTCP4
	switch {
	case k.udp() && k.ipv6():
		sk = socketUDP6
	case k.udp():
		sk = socketUDP4
	case k.ipv6():
		sk = socketTCP6
	}
	fd, err := sk.open()
	if err != nil {
		return -1, fmt.Errorf("listener %v: %w", k.address(), err)
	}
	fail := func(what string, err error) (int, error) {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("listener %v: %s: %w", k.address(), what, err)
	}
	if k == listenUDP4 || k == listenUDP6 {
		opt := sockopt{unix.SOL_IP, unix.IP_RECVORIGDSTADDR, 1}
		if k.ipv6() {
			opt = sockopt{unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR, 1}
		}
		if err := setsockopts(fd, []sockopt{opt}); err != nil {
			return fail("original destination", err)
		}
	}
	if err := unix.Bind(fd, sockaddr(k.address())); err != nil {
		return fail("bind", err)
	}
	if !k.udp() {
		if err := unix.Listen(fd, backlog); err != nil {
			return fail("listen", err)
		}
	}
	return fd, nil
}

// sockaddr converts to the form of the system calls.
func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
