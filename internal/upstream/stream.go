package upstream

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Stream reads and writes one connection from one goroutine without
// allocating. On a socket it saves the empty read that net.Conn.Read makes
// before it waits where that is safe (Exchange), and holds no buffer while it
// waits (Read). On any other net.Conn it falls back to plain reads.
type Stream struct {
	conn net.Conn
	raw  syscall.RawConn // nil when conn is not a socket

	// Arguments and results of the read that runs; owner's goroutine only.
	step   func(fd uintptr) bool
	out    []byte // still to be written before the first read
	buf    *Buffer
	sent   func()
	parked func()
	phase  readPhase
	n      int
	err    error

	// The same of the write that runs; the writer's goroutine only.
	wstep func(fd uintptr) bool
	wout  []byte // still to be written
	werr  error
	wrote uint64 // by Write and Answer, so far

	// Of the one look at the socket that runs.
	probe  func(fd uintptr)
	probed Liveness
	polled unix.PollFd

	check   func(fd uintptr)
	checked bool
	first   [1]byte

	expired atomic.Bool
}

type readPhase uint8

const (
	phaseWrite  readPhase = iota // write out, then wait without a try-read
	phaseAnswer                  // write out, then try to read
	phaseFirst                   // first try-read of a plain read
	phaseWaited                  // readable, or woken
)

// Liveness is what a look at an idle socket shows.
type Liveness uint8

// What Probe finds.
const (
	Quiet    Liveness = iota // open, nothing to read
	Readable                 // bytes are waiting
	Ended                    // the peer has closed its sending side
	Broken                   // reset, or no longer a socket of ours
)

// Init attaches the stream to c. It must be called once, before use.
func (s *Stream) Init(c net.Conn) {
	s.conn = c
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw = raw
			s.step = s.onReady
			s.wstep = s.onWritable
			s.probe = s.onProbe
			s.check = s.onCheck
		}
	}
}

// NetConn is the connection below.
func (s *Stream) NetConn() net.Conn { return s.conn }

// Close closes the connection.
func (s *Stream) Close() error { return s.conn.Close() }

// Write writes all of p. One goroutine may write while another reads.
func (s *Stream) Write(p []byte) (int, error) {
	if s.raw == nil {
		n, err := s.conn.Write(p)
		s.wrote += uint64(n)
		return n, err
	}
	s.wout, s.werr = p, nil
	err := s.raw.Write(s.wstep)
	n := len(p) - len(s.wout)
	s.wrote += uint64(n)
	s.wout = nil
	if err == nil {
		err = s.werr
	}
	return n, err
}

// Written is how many bytes Write and Answer have handed to the kernel; what Exchange
// and others wrote is not among them. It is the writer's to ask.
func (s *Stream) Written() uint64 { return s.wrote }

// onWritable is the callback of RawConn.Write: false waits until the socket is
// writable.
func (s *Stream) onWritable(fd uintptr) bool {
	var errno syscall.Errno
	s.wout, errno = sendAll(fd, s.wout)
	switch errno {
	case 0:
	case syscall.EAGAIN:
		return false
	default:
		s.werr = os.NewSyscallError("write", errno)
	}
	return true
}

// sendAll writes p until the socket takes no more, and returns the rest.
func sendAll(fd uintptr, p []byte) (rest []byte, errno syscall.Errno) {
	for len(p) > 0 {
		var n int
		switch n, errno = send(fd, p); errno {
		case 0:
			p = p[n:]
		case syscall.EINTR:
		default:
			return p, errno
		}
	}
	return nil, 0
}

// Interrupt wakes the goroutine that is blocked in a read of this stream; its
// read returns os.ErrDeadlineExceeded. Who was interrupted must call Resume
// before it reads again. A spurious interrupt is harmless: callers that find
// no reason for it resume and read on.
func (s *Stream) Interrupt() {
	s.expired.Store(true)
	_ = s.conn.SetReadDeadline(time.Unix(1, 0)) // fails only when closed, which wakes the reader too
}

// Resume makes the stream readable after Interrupt or an expired deadline.
func (s *Stream) Resume() {
	s.expired.Store(false)
	_ = s.conn.SetReadDeadline(time.Time{}) // fails only when closed, which the next read reports
}

// Interrupted reports whether Interrupt was called since the last Resume.
func (s *Stream) Interrupted() bool { return s.expired.Load() }

// Read waits until bytes arrive and reads once into the room of b, which must
// have some (MakeRoom) unless it is empty. An empty buffer is given back to its
// pool while the stream waits. parked, if not nil, is called at most once,
// before waiting: it must not block. At the end of the stream the error is
// io.EOF.
func (s *Stream) Read(b *Buffer, parked func()) (int, error) {
	if s.raw == nil {
		if parked != nil {
			parked()
		}
		b.Take()
		n, err := s.conn.Read(b.Free())
		b.Wrote(n)
		if n > 0 {
			return n, nil
		}
		b.ReleaseIfEmpty()
		return 0, err
	}
	s.buf, s.parked, s.phase = b, parked, phaseFirst
	return s.run()
}

// Exchange writes out and then reads the first bytes of the answer into b.
// written says how many bytes of out the kernel took. Because the wait begins
// right after the write, whatever came before the write must have been read
// or looked for (Probe): a stream with unread input would wait for more.
func (s *Stream) Exchange(out []byte, b *Buffer) (written, n int, err error) {
	if s.raw == nil {
		written, err = s.conn.Write(out)
		if err != nil {
			return written, 0, err
		}
		n, err = s.Read(b, nil)
		return written, n, err
	}
	s.out, s.buf, s.parked, s.phase = out, b, nil, phaseWrite
	n, err = s.run()
	written = len(out) - len(s.out)
	if n == 0 && err == nil { // the socket's send buffer is full: the slow way
		var more int
		more, err = s.conn.Write(s.out)
		written += more
		s.out = nil
		if err != nil {
			return written, 0, err
		}
		n, err = s.Read(b, nil)
	}
	s.out = nil
	return written, n, err
}

// Answer writes out, calls sent, which must not block, and then reads as Read does, all
// in one turn of the socket's lock. If written is less than len(out), sent was not
// called and nothing was read: the rest is for Write, unless err says that it is of no
// use. (An interrupted stream may still be written to.)
func (s *Stream) Answer(out []byte, b *Buffer, sent, parked func()) (written, n int, err error) {
	if s.raw == nil {
		if written, err = s.Write(out); err != nil {
			return written, 0, err
		}
		sent()
		n, err = s.Read(b, parked)
		return written, n, err
	}
	s.out, s.buf, s.sent, s.parked, s.phase = out, b, sent, parked, phaseAnswer
	n, err = s.run()
	written = len(out) - len(s.out)
	s.wrote += uint64(written)
	s.out, s.sent = nil, nil
	return written, n, err
}

func (s *Stream) run() (int, error) {
	s.n, s.err = 0, nil
	if err := s.raw.Read(s.step); err != nil {
		if s.buf.mem != nil {
			s.buf.ReleaseIfEmpty()
		}
		s.buf, s.parked = nil, nil
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, os.ErrDeadlineExceeded
		}
		return 0, err
	}
	s.buf, s.parked = nil, nil
	return s.n, s.err
}

// onReady is the callback of RawConn.Read: true ends the read, false waits
// until the socket is readable.
func (s *Stream) onReady(fd uintptr) bool {
	if s.phase <= phaseAnswer {
		if !s.sendOut(fd) {
			return true
		}
		if s.phase == phaseWrite {
			s.phase = phaseWaited
			return false
		}
		s.phase = phaseFirst
		s.sent()
	}
	s.buf.Take()
	for {
		n, errno := receive(fd, s.buf.Free())
		switch {
		case errno == 0 && n > 0:
			s.buf.Wrote(n)
			s.n = n
			return true
		case errno == 0:
			s.buf.ReleaseIfEmpty()
			s.err = io.EOF
			return true
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			s.buf.ReleaseIfEmpty()
			if s.parked != nil && s.phase == phaseFirst {
				s.phase = phaseWaited
				s.parked()
			}
			return false
		default:
			s.buf.ReleaseIfEmpty()
			s.err = os.NewSyscallError("read", errno)
			return true
		}
	}
}

// sendOut writes s.out; false means that the read cannot follow. If there is no error
// then, the send buffer is full.
func (s *Stream) sendOut(fd uintptr) bool {
	var errno syscall.Errno
	s.out, errno = sendAll(fd, s.out)
	if errno != 0 && errno != syscall.EAGAIN {
		s.err = os.NewSyscallError("write", errno)
	}
	return errno == 0
}

// Probe looks at the socket without taking bytes from it. It may run while the
// owner waits in a read of another stream, but two probes of one stream must
// not overlap. A connection that is not a socket is always Quiet.
func (s *Stream) Probe() Liveness {
	if s.raw == nil {
		return Quiet
	}
	s.probed = Broken
	if err := s.raw.Control(s.probe); err != nil {
		return Broken
	}
	return s.probed
}

func (s *Stream) onProbe(fd uintptr) {
	s.polled = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}
	errno := pollNow(&s.polled)
	switch got := s.polled.Revents; {
	case errno != 0: // interrupted: nothing was learnt
		s.probed = Quiet
	case got&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0:
		s.probed = Broken
	case got&unix.POLLRDHUP != 0:
		s.probed = Ended
	case got&unix.POLLIN != 0:
		s.probed = Readable
	default:
		s.probed = Quiet
	}
}

// Untouched reports whether the peer has neither closed an idle connection nor
// sent anything on it: half the cost of a Probe, under the same rules.
func (s *Stream) Untouched() bool {
	if s.raw == nil {
		return true
	}
	s.checked = false
	return s.raw.Control(s.check) == nil && s.checked
}

func (s *Stream) onCheck(fd uintptr) {
	_, errno := peek(fd, &s.first)
	s.checked = errno == syscall.EAGAIN || errno == syscall.EINTR
}

// Acknowledged is how many bytes the peer's kernel has taken, whoever wrote them,
// also after a reset; if the other end was connected by the peer. An error means
// that this is not known.
func (s *Stream) Acknowledged() (uint64, error) {
	if s.raw == nil {
		return 0, errors.ErrUnsupported
	}
	var info *unix.TCPInfo
	var err error
	if cerr := s.raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); cerr != nil {
		return 0, cerr
	}
	if err != nil {
		return 0, os.NewSyscallError("getsockopt", err)
	}
	return info.Bytes_acked, nil
}

// SocketError takes the pending error of the socket (SO_ERROR), or nil. After
// the end of the stream it tells an orderly close from a peer that refused
// what was written to it last.
func (s *Stream) SocketError() error {
	if s.raw == nil {
		return nil
	}
	var pending int
	err := s.raw.Control(func(fd uintptr) {
		pending, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	})
	if err != nil {
		return err
	}
	if pending != 0 {
		return syscall.Errno(pending)
	}
	return nil
}
