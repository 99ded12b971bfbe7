package intercept

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// errMeshOnly says that a destination is one of Config.MeshOnly.
var errMeshOnly = errors.New("the destination means nothing on the host")

// Types and codes of "destination unreachable" (RFC 792, RFC 1122 3.2.2.1, RFC
// 4443 3.1). Only some of them become errors of a socket that did not ask for all
// (Linux: the fatal ones of icmp_err_convert and tab_unreach).
const (
	icmp4Unreachable    = 3
	icmp4Port           = 3  // ECONNREFUSED
	icmp4NetUnknown     = 6  // ENETUNREACH
	icmp4Prohibited     = 13 // EHOSTUNREACH
	icmp6Unreachable    = 1
	icmp6Prohibited     = 1 // EACCES
	icmp6Port           = 4 // ECONNREFUSED
	icmpHeaderLen       = 8
	ip4HeaderLen        = 20
	ip6HeaderLen        = 40
	udpHeaderLen        = 8
	hopLimit            = 64
	precedenceInterNet  = 0xc0 // type of service of the kernel's own errors
	ip4VersionAndLength = 0x45
	ip6Version          = 0x60
)

// unreachableCode is how an error of a host's socket is told to the program that
// caused it; ok is false if it says nothing about the destination.
func unreachableCode(err error, ipv6 bool) (code byte, ok bool) {
	has := func(list ...unix.Errno) bool {
		for _, e := range list {
			if errors.Is(err, e) {
				return true
			}
		}
		return false
	}
	switch {
	case errors.Is(err, errMeshOnly), has(unix.ECONNREFUSED):
		if ipv6 {
			return icmp6Port, true
		}
		return icmp4Port, true
	case has(unix.EACCES, unix.EPERM):
		if ipv6 {
			return icmp6Prohibited, true
		}
		return icmp4Prohibited, true
	case has(unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EADDRNOTAVAIL, unix.EINVAL):
		if ipv6 {
			return icmp6Port, true // no code means "no route" and reaches the program
		}
		return icmp4NetUnknown, true
	}
	return 0, false
}

// unreachable is the packet with which dst answers a datagram of program that it
// does not take, IP header included. Both are of one family. The checksum of an
// IPv4 header is left to the kernel (raw(7)).
func unreachable(program, dst netip.AddrPort, code byte) []byte {
	udp := make([]byte, udpHeaderLen)
	binary.BigEndian.PutUint16(udp, program.Port())
	binary.BigEndian.PutUint16(udp[2:], dst.Port())
	binary.BigEndian.PutUint16(udp[4:], udpHeaderLen)
	if dst.Addr().Is4() {
		inner := ip4Header(program.Addr(), dst.Addr(), unix.IPPROTO_UDP, udp)
		binary.BigEndian.PutUint16(inner[10:], checksum(inner[:ip4HeaderLen]))
		icmp := icmpMessage(icmp4Unreachable, code, inner)
		binary.BigEndian.PutUint16(icmp[2:], checksum(icmp))
		return ip4Header(dst.Addr(), program.Addr(), unix.IPPROTO_ICMP, icmp)
	}
	icmp := icmpMessage(icmp6Unreachable, code, ip6Header(program.Addr(), dst.Addr(), unix.IPPROTO_UDP, udp))
	pseudo := append(dst.Addr().AsSlice(), program.Addr().AsSlice()...) // RFC 8200 8.1
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(icmp)))
	pseudo = binary.BigEndian.AppendUint32(pseudo, unix.IPPROTO_ICMPV6)
	binary.BigEndian.PutUint16(icmp[2:], checksum(append(pseudo, icmp...)))
	return ip6Header(dst.Addr(), program.Addr(), unix.IPPROTO_ICMPV6, icmp)
}

func icmpMessage(typ, code byte, body []byte) []byte {
	return append([]byte{typ, code, icmpHeaderLen - 1: 0}, body...)
}

func ip4Header(src, dst netip.Addr, proto byte, body []byte) []byte {
	h := make([]byte, ip4HeaderLen, ip4HeaderLen+len(body))
	h[0], h[1], h[8], h[9] = ip4VersionAndLength, precedenceInterNet, hopLimit, proto
	binary.BigEndian.PutUint16(h[2:], uint16(ip4HeaderLen+len(body)))
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	return append(h, body...)
}

func ip6Header(src, dst netip.Addr, next byte, body []byte) []byte {
	h := make([]byte, ip6HeaderLen, ip6HeaderLen+len(body))
	h[0], h[6], h[7] = ip6Version, next, hopLimit
	binary.BigEndian.PutUint16(h[4:], uint16(len(body)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return append(h, body...)
}

// checksum is that of RFC 1071, for an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// icmpSender sends packets of our own making inside the case. Its sockets are
// made when they are first needed, which most cases never do.
type icmpSender struct {
	c *Case

	mu   sync.Mutex // guards what follows
	fds  map[socketKind]int
	said bool // that it does not work
}

// unreachable tells the program of key that its datagrams do not reach dst.
func (s *icmpSender) unreachable(ctx context.Context, key flowKey, code byte) {
	kind := socketRaw4
	if key.dst.Addr().Is6() {
		kind = socketRaw6
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.send(ctx, kind, key, code)
	if err != nil && ctx.Err() == nil && !s.said {
		s.said = true
		s.c.log.Warn("programs are not told of UDP that does not arrive: root needs CAP_NET_RAW for it", "error", err)
	}
}

// send sends one packet; mu is held.
func (s *icmpSender) send(ctx context.Context, kind socketKind, key flowKey, code byte) error {
	fd, ok := s.fds[kind]
	if !ok {
		fds, err := s.c.makeSockets(ctx, kind, 1)
		if err != nil {
			return err
		}
		if len(fds) != 1 {
			return fmt.Errorf("the agent made %d sockets", len(fds))
		}
		fd = fds[0]
		s.fds[kind] = fd
	}
	to := netip.AddrPortFrom(key.program.Addr(), 0)
	if err := unix.Sendto(fd, unreachable(key.program, key.dst, code), 0, sockaddr(to)); err != nil {
		return fmt.Errorf("send \"unreachable\" to %v: %w", key.program, err)
	}
	return nil
}

// close ends it; nobody may be using it any more.
func (s *icmpSender) close() {
	for _, fd := range s.fds {
		_ = unix.Close(fd)
	}
}
