package intercept

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// kind tells what a packet between P0 and P1 means.
type kind uint8

const (
	kindSetup   kind = iota + 1 // P0→P1: body setupRequest
	kindReady                   // P1→P0: body setupReply, fds: listeners
	kindFailed                  // P1→P0: body setupFailure
	kindSockets                 // P0→P1: a socketKind, b count; P1→P0: b errno, fds
	kindStart                   // P0→P1: body programRequest, fds stdin stdout stderr
	kindStarted                 // P1→P0: a pid in the case, fds pidfd; or a errno, b exit code, body reason
	kindExited                  // P1→P0: a pid in the case, b wait status, body CPU time in nanoseconds
	kindProbe                   // P0→P1: body setupRequest; try everything, for Diagnose
	kindProbed                  // P1→P0: body []Check
)

const (
	headerLen = 20
	// maxInline is the largest body sent inside a packet; a SEQPACKET message
	// must fit into the socket buffer (net.core.wmem_default, 208 KiB).
	// Larger bodies travel in a memory file.
	maxInline = 32 << 10
	// maxBody bounds the memory that one packet may ask for.
	maxBody = 64 << 20
	// maxFDs is how many descriptors one packet carries; the kernel's limit is
	// 253 (SCM_MAX_FD).
	maxFDs = 64
	// flagMemfd marks a body that is in the last descriptor.
	flagMemfd = 1
)

// packet is one message on the socket between P0 and P1.
type packet struct {
	kind kind
	id   uint32 // answers carry the id of their request
	a, b int32
	body []byte
	fds  []int // owned by the receiver
}

// closeFDs closes descriptors that nobody wants.
func (p *packet) closeFDs() {
	for _, fd := range p.fds {
		_ = unix.Close(fd)
	}
	p.fds = nil
}

// takeFD takes descriptor i out of the packet.
func (p *packet) takeFD(i int) (int, error) {
	if i >= len(p.fds) || p.fds[i] < 0 {
		return -1, fmt.Errorf("packet of kind %d has no descriptor %d", p.kind, i)
	}
	fd := p.fds[i]
	p.fds[i] = -1
	return fd, nil
}

// marshalHeader writes the fixed part of a packet.
func marshalHeader(p *packet, bodyLen int, flags uint8) [headerLen]byte {
	var h [headerLen]byte
	h[0] = byte(p.kind)
	h[1] = flags
	binary.LittleEndian.PutUint32(h[4:], p.id)
	binary.LittleEndian.PutUint32(h[8:], uint32(p.a))
	binary.LittleEndian.PutUint32(h[12:], uint32(p.b))
	binary.LittleEndian.PutUint32(h[16:], uint32(bodyLen))
	return h
}

// unmarshalHeader reads the fixed part of a packet and checks its bounds.
func unmarshalHeader(data []byte) (p packet, bodyLen int, flags uint8, err error) {
	if len(data) < headerLen {
		return packet{}, 0, 0, fmt.Errorf("packet of %d bytes is shorter than its header", len(data))
	}
	p.kind = kind(data[0])
	flags = data[1]
	p.id = binary.LittleEndian.Uint32(data[4:])
	p.a = int32(binary.LittleEndian.Uint32(data[8:]))
	p.b = int32(binary.LittleEndian.Uint32(data[12:]))
	n := binary.LittleEndian.Uint32(data[16:])
	if n > maxBody {
		return packet{}, 0, 0, fmt.Errorf("packet body of %d bytes is over %d", n, maxBody)
	}
	if flags&flagMemfd == 0 && int(n) != len(data)-headerLen {
		return packet{}, 0, 0, fmt.Errorf("packet says %d bytes and carries %d", n, len(data)-headerLen)
	}
	return p, int(n), flags, nil
}

// channel is one end of the SEQPACKET socket between P0 and P1. Any number of
// goroutines may send; one receives.
type channel struct {
	conn *net.UnixConn

	mu sync.Mutex // guards the writing side

	buf []byte // only touched by receive
	oob []byte // only touched by receive
}

// newChannel takes ownership of fd.
func newChannel(fd int) (*channel, error) {
	f := os.NewFile(uintptr(fd), "case control socket")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("control socket is a %T", c)
	}
	return &channel{
		conn: uc,
		buf:  make([]byte, headerLen+maxInline),
		oob:  make([]byte, unix.CmsgSpace(4*(maxFDs+1))),
	}, nil
}

// send writes p. The descriptors stay the sender's.
func (c *channel) send(p *packet) error {
	fds := p.fds
	body := p.body
	var flags uint8
	if len(body) > maxInline {
		fd, err := memfile(body)
		if err != nil {
			return fmt.Errorf("send packet of kind %d: %w", p.kind, err)
		}
		defer func() { _ = unix.Close(fd) }()
		fds = append(append([]int(nil), fds...), fd)
		flags |= flagMemfd
		body = nil
	}
	h := marshalHeader(p, len(p.body), flags)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	data := append(h[:], body...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, _, err := c.conn.WriteMsgUnix(data, rights, nil); err != nil {
		return fmt.Errorf("send packet of kind %d: %w", p.kind, err)
	}
	return nil
}

// sendJSON is send with v as the body.
func (c *channel) sendJSON(p packet, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode packet of kind %d: %w", p.kind, err)
	}
	p.body = body
	return c.send(&p)
}

// receive reads the next packet; io.EOF when the other end is gone.
func (c *channel) receive() (packet, error) {
	n, oobn, msgFlags, _, err := c.conn.ReadMsgUnix(c.buf, c.oob)
	if err != nil {
		return packet{}, fmt.Errorf("receive packet: %w", err)
	}
	fds, err := parseRights(c.oob[:oobn])
	if err != nil {
		return packet{}, err
	}
	if n == 0 && len(fds) == 0 {
		return packet{}, io.EOF
	}
	leftover := packet{fds: fds}
	if msgFlags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		leftover.closeFDs()
		return packet{}, errors.New("receive packet: truncated (too many open files?)")
	}
	p, bodyLen, flags, err := unmarshalHeader(c.buf[:n])
	if err != nil {
		leftover.closeFDs()
		return packet{}, err
	}
	p.fds = fds
	if flags&flagMemfd == 0 {
		p.body = append([]byte(nil), c.buf[headerLen:n]...)
		return p, nil
	}
	if len(p.fds) == 0 {
		return packet{}, errors.New("packet promises a memory file and carries none")
	}
	last := len(p.fds) - 1
	p.body, err = readMemfile(p.fds[last], bodyLen)
	_ = unix.Close(p.fds[last])
	p.fds = p.fds[:last]
	if err != nil {
		p.closeFDs()
		return packet{}, err
	}
	return p, nil
}

func (c *channel) close() { _ = c.conn.Close() }

func parseRights(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("parse control message: %w", err)
	}
	var fds []int
	for i := range msgs {
		got, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // not SCM_RIGHTS; nothing of ours
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

// memfile returns an anonymous file with the given content.
func memfile(data []byte) (int, error) {
	fd, err := unix.MemfdCreate("vitrine", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	for off := 0; off < len(data); {
		n, err := unix.Pwrite(fd, data[off:], int64(off))
		if err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("write memory file: %w", err)
		}
		off += n
	}
	return fd, nil
}

func readMemfile(fd, size int) ([]byte, error) {
	data := make([]byte, size)
	for off := 0; off < size; {
		n, err := unix.Pread(fd, data[off:], int64(off))
		if err != nil {
			return nil, fmt.Errorf("read memory file: %w", err)
		}
		if n == 0 {
			return nil, fmt.Errorf("read memory file: %w", io.ErrUnexpectedEOF)
		}
		off += n
	}
	return data, nil
}
