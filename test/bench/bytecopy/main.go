// Command bytecopy is the floor of the comparison: one thread that copies bytes
// between two sockets as they come, without a look at them. It has no requests,
// no pool and no telemetry, and gives up a connection whose peer does not read.
// What it costs is what the kernel takes for any proxy in user space: two
// receives and two sends for each request.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:29085", "IPv4 address to listen on")
	origin := flag.String("origin", "127.0.0.1:29079", "IPv4 address of the origin")
	flag.Parse()
	if err := run(*listen, *origin); err != nil {
		fmt.Fprintln(os.Stderr, "bytecopy:", err)
		os.Exit(1)
	}
}

// relay is the epoll set and, for each socket, the one its bytes go to.
type relay struct {
	epoll  int
	origin unix.SockaddrInet4
	other  map[int]int
}

func run(listen, origin string) error {
	runtime.LockOSThread()
	local, err := sockaddr(listen)
	if err != nil {
		return err
	}
	remote, err := sockaddr(origin)
	if err != nil {
		return err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make epoll set: %w", err)
	}
	r := relay{epoll: epoll, origin: remote, other: map[int]int{}}
	ln, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make socket: %w", err)
	}
	if err := unix.SetsockoptInt(ln, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("reuse address: %w", err)
	}
	if err := errors.Join(unix.Bind(ln, &local), unix.Listen(ln, 4096)); err != nil {
		return fmt.Errorf("listen on %s: %w", listen, err)
	}
	if err := r.watch(ln, unix.EPOLLIN); err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 128)
	buf := make([]byte, 16<<10)
	for {
		// Past the scheduler like transfer, though it waits: nothing else is to run.
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll),
			uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), ^uintptr(0), 0, 0)
		switch errno {
		case 0:
		case unix.EINTR:
			continue
		default:
			return fmt.Errorf("wait: %w", errno)
		}
		for _, e := range events[:n] {
			switch fd := int(e.Fd); fd {
			case ln:
				if err := r.accept(ln); err != nil {
					return err
				}
			default:
				r.copy(fd, buf)
			}
		}
	}
}

func sockaddr(s string) (unix.SockaddrInet4, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil || !a.Addr().Is4() {
		return unix.SockaddrInet4{}, fmt.Errorf("%q is no IPv4 address and port", s)
	}
	return unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, nil
}

func (r *relay) watch(fd int, events uint32) error {
	if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("watch socket: %w", err)
	}
	return nil
}

// accept takes a connection and opens its own one to the origin.
func (r *relay) accept(ln int) error {
	down, _, err := unix.Accept4(ln, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	switch {
	case errors.Is(err, unix.ECONNABORTED), errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return fmt.Errorf("accept: %w", err)
	}
	up, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make socket: %w", err)
	}
	if err := unix.Connect(up, &r.origin); err != nil {
		return fmt.Errorf("connect to the origin: %w", err)
	}
	r.other[down], r.other[up] = up, down
	for _, fd := range [...]int{down, up} {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return fmt.Errorf("set TCP_NODELAY: %w", err)
		}
		if err := r.watch(fd, unix.EPOLLIN|unix.EPOLLRDHUP|(unix.EPOLLET&0xffffffff)); err != nil {
			return err
		}
	}
	return nil
}

// copy hands on what has come on fd; a message of the comparison fits in buf.
func (r *relay) copy(fd int, buf []byte) {
	to, open := r.other[fd]
	if !open {
		return // closed by an earlier event of the same wait
	}
	n, errno := transfer(unix.SYS_RECVFROM, fd, buf, unix.MSG_DONTWAIT)
	if errno == unix.EAGAIN {
		return
	}
	if errno == 0 && n > 0 {
		if sent, errno := transfer(unix.SYS_SENDTO, to, buf[:n], unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); errno == 0 && sent == n {
			return
		}
	}
	for _, s := range [...]int{fd, to} {
		delete(r.other, s)
		_ = unix.Close(s)
	}
}

// transfer is one call that never waits, past the scheduler: there is only one
// thread to run.
func transfer(call uintptr, fd int, p []byte, flags uintptr) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
	return int(n), errno
}
