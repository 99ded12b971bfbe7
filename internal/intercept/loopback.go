package intercept

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// setupLoopback makes the current (new, empty) network namespace one in which
// every address is local: lo is up and holds the case's addresses, and the
// default route of both families is of type local. So any connect(2) finds its
// way to the nftables rules, and any source address can be answered.
// ipv6 is false if the kernel has no IPv6.
func setupLoopback(ip4, ip6 netip.Addr) (ipv6 bool, err error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return false, fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return false, fmt.Errorf("set lo up: %w", err)
	}
	if err := addLocal(lo, ip4); err != nil {
		return false, err
	}
	if !ip6.IsValid() {
		return false, nil
	}
	switch err := addLocal(lo, ip6); {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EACCES):
		return false, nil // switched off at boot or by sysctl
	default:
		return false, err
	}
}

// addLocal gives lo the address and makes everything of its family local, with
// the address as preferred source.
func addLocal(lo netlink.Link, addr netip.Addr) error {
	bits := addr.BitLen()
	ip := net.IP(addr.AsSlice())
	a := &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, bits)}}
	if addr.Is6() {
		// A prefix route on lo becomes one that refuses ("would result in kernel
		// looping", ip6_route_info_create), and counts until the address's own route
		// is there, for which the kernel takes a work queue's time.
		a.Flags = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE
	}
	if err := netlink.AddrAdd(lo, a); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add %v to lo: %w", addr, err)
	}
	zero := make(net.IP, bits/8)
	err := netlink.RouteAdd(&netlink.Route{
		LinkIndex: lo.Attrs().Index,
		Dst:       &net.IPNet{IP: zero, Mask: net.CIDRMask(0, bits)},
		Src:       ip,
		Type:      unix.RTN_LOCAL,
		Scope:     netlink.SCOPE_HOST,
		Table:     unix.RT_TABLE_MAIN,
	})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add local default route for %v: %w", addr, err)
	}
	return nil
}

// tuneNetwork writes the settings of this network namespace. Only the first
// matters to programs; a kernel that lacks one of them is fine.
func tuneNetwork() (notes []string) {
	for _, s := range []struct{ name, value, loss string }{
		{"net/ipv4/ip_unprivileged_port_start", "0", "programs cannot listen on ports below 1024 without root"},
		// All connections leave from one address, as from one pod. Timestamps
		// make reuse safe, and the default (2) only means 127/8.
		{"net/ipv4/tcp_tw_reuse", "1", ""},
	} {
		if err := os.WriteFile("/proc/sys/"+s.name, []byte(s.value), 0); err != nil && s.loss != "" {
			notes = append(notes, s.loss+": "+err.Error())
		}
	}
	return notes
}
