package intercept

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUnreachablePacket: both packets byte for byte, with the inner checksum of
// IPv4 and the outer ones of ICMP.
func TestUnreachablePacket(t *testing.T) {
	for _, tc := range []struct {
		program, dst string
		code         byte
		want         []byte
	}{
		{"10.77.0.2:4660", "127.0.0.1:9", icmp4Port, []byte{
			0x45, 0xc0, 0, 56, 0, 0, 0, 0, 64, 1, 0, 0, 127, 0, 0, 1, 10, 77, 0, 2,
			3, 3, 0xea, 0xb7, 0, 0, 0, 0,
			0x45, 0xc0, 0, 28, 0, 0, 0, 0, 64, 17, 0xf0, 0xc1, 10, 77, 0, 2, 127, 0, 0, 1,
			0x12, 0x34, 0, 9, 0, 8, 0, 0,
		}},
		{"[fd77::2]:4660", "[::1]:9", icmp6Port, []byte{
			0x60, 0, 0, 0, 0, 56, 58, 64,
			0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
			1, 4, 0x80, 0x06, 0, 0, 0, 0,
			0x60, 0, 0, 0, 0, 8, 17, 64,
			0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
			0x12, 0x34, 0, 9, 0, 8, 0, 0,
		}},
	} {
		got := unreachable(netip.MustParseAddrPort(tc.program), netip.MustParseAddrPort(tc.dst), tc.code)
		if !bytes.Equal(got, tc.want) {
			t.Errorf("%s to %s:\n got %x\nwant %x", tc.program, tc.dst, got, tc.want)
		}
	}
}

func TestUnreachableCode(t *testing.T) {
	for _, tc := range []struct {
		err        error
		ip4, ip6   byte
		isTellable bool
	}{
		{unix.ECONNREFUSED, icmp4Port, icmp6Port, true},
		{fmt.Errorf("open: %w", errMeshOnly), icmp4Port, icmp6Port, true},
		{unix.EPERM, icmp4Prohibited, icmp6Prohibited, true}, // the host's firewall
		{unix.ENETUNREACH, icmp4NetUnknown, icmp6Port, true},
		{unix.EHOSTUNREACH, icmp4NetUnknown, icmp6Port, true},
		{unix.EMFILE, 0, 0, false},
		{unix.EMSGSIZE, 0, 0, false},
		{errors.New("anything"), 0, 0, false},
	} {
		ip4, ok4 := unreachableCode(tc.err, false)
		ip6, ok6 := unreachableCode(tc.err, true)
		if ip4 != tc.ip4 || ip6 != tc.ip6 || ok4 != tc.isTellable || ok6 != tc.isTellable {
			t.Errorf("%v: %d %t, %d %t", tc.err, ip4, ok4, ip6, ok6)
		}
	}
}
