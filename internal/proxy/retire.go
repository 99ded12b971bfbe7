package proxy

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A retired listener waits for handshakes that began before no more were let in. On
// loopback the whole handshake happens inside the client's connect(2), in some
// microseconds, unless the kernel leaves packets to a thread that a busy processor
// does not run at once: then the listener waits until they are delivered. It waits no
// longer than that, since whoever wants to connect meanwhile loses a second.
const (
	handshakeTime  = 500 * time.Microsecond // at least, and between looks
	handshakeLimit = 500 * time.Millisecond // at most; below the second after which clients try again
)

// retire ends a listener without resetting anybody. Closing one resets the
// connections that are complete but not yet accepted, and on a published address
// the kernel goes on handing new ones to this listener as long as it is open.
// So accept takes what waits; then a filter drops new connection requests (only
// the packets with SYN), what was let in meanwhile is taken, and the listener is
// closed. The kernel of a client whose request was dropped repeats it after a
// second: it comes to the listener of another replica, or is refused as there
// is none. The caller holds p.mu.
func (p *Proxy) retire(b *bound) {
	if !b.served {
		b.close() // nobody accepts: Run has not begun or has ended
		return
	}
	p.retiring++
	b.retired.Store(true)
	_ = b.ln.SetDeadline(time.Unix(1, 0)) // wakes accept; fails only when closed
}

// takeQueued serves every connection that waits to be accepted.
func (p *Proxy) takeQueued(ctx context.Context, serving *sync.WaitGroup, b *bound) {
	for nc := b.queued(); nc != nil; nc = b.queued() {
		p.take(ctx, serving, b, nc)
	}
}

// retired closes a listener from which nobody accepts any more.
func (p *Proxy) retired(b *bound) {
	b.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	b.served = false
	if b.retired.Load() {
		p.retiring--
	}
}

// control calls f with the listener's descriptor.
func (b *bound) control(f func(fd int)) error {
	raw, err := b.ln.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { f(int(fd)) })
}

// queued accepts a connection that waits already; nil if there is none.
func (b *bound) queued() *net.TCPConn {
	accepted := -1
	if err := b.control(func(fd int) {
		var err error
		for {
			accepted, _, err = unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if err != unix.EINTR && err != unix.ECONNABORTED {
				break
			}
		}
		if err != nil {
			accepted = -1
		}
	}); err != nil || accepted < 0 {
		return nil
	}
	f := os.NewFile(uintptr(accepted), "")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		return nil
	}
	_ = tcp.SetNoDelay(true) // as AcceptTCP does; fails only when closed
	return tcp
}

// awaitHandshakes waits for what is under way on loopback, while undelivered says
// that packets are, and at most for limit.
func awaitHandshakes(ctx context.Context, limit time.Duration, undelivered func() bool) {
	for end := time.Now().Add(limit); pause(ctx, handshakeTime) && undelivered() && time.Now().Before(end); {
	}
}

// packetsWait reports whether packets wait for a processor of this machine to deliver
// them. Where that cannot be found out it reports false.
func packetsWait() bool {
	table, err := os.ReadFile("/proc/net/softnet_stat")
	return err == nil && backlogged(string(table))
}

// backlogged reads the kernel's table of packet queues: a line of hexadecimal numbers
// for each processor, of which one is how many packets wait (softnet_seq_show in the
// kernel's net/core/net-procfs.c). Older kernels do not tell it.
func backlogged(table string) bool {
	const waiting = 11
	for line := range strings.Lines(table) {
		numbers := strings.Fields(line)
		if len(numbers) > waiting && strings.Trim(numbers[waiting], "0") != "" {
			return true
		}
	}
	return false
}

// dropHandshakes makes the kernel drop packets with SYN that come to the
// listener. The filter sees packets from the TCP header on. Newer kernels allow it
// to root only: without it, a connection that is made in the last microseconds of
// the listener is reset.
func (b *bound) dropHandshakes() error {
	const (
		flagsOffset = 13   // RFC 9293, section 3.1
		flagSYN     = 0x02 // as above
		all         = 1 << 18
	)
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: flagsOffset},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: flagSYN, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: all},
	}
	var refused error
	err := b.control(func(fd int) {
		refused = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{
			Len: uint16(len(program)), Filter: &program[0],
		})
	})
	return errors.Join(err, refused)
}
