package mesh

import (
	"fmt"
	"net/netip"
)

// Fixed ports of a proxy, the same as Istio's.
const (
	PortAdmin      = 15000 // Envoy-compatible admin
	PortOutbound   = 15001 // redirected outbound TCP, inside the case
	PortInbound    = 15006 // connections of other proxies to ports that nobody declared (Listener.ProxyProtocol)
	PortMerged     = 15020 // metrics of the proxy (and later of the program) for scraping
	PortHealth     = 15021 // /healthz/ready
	PortEnvoyStats = 15090 // /stats/prometheus as Envoy has it

	// PortWireBase is the first wire port of a workload. The i-th declared
	// port of a workload is reachable by other proxies on PortWireBase+i of
	// its mesh IP. Program port numbers are never bound on the host, since a
	// listener on 127.77.0.5:8080 would forbid every program of the user to
	// listen on 0.0.0.0:8080.
	PortWireBase = 15100
	// MaxWirePorts is how many declared ports a workload may have.
	MaxWirePorts = 400
)

// Networks of local mode. Each workload has an index that fixes the last two
// bytes of all its addresses.
//
// The mesh IP (127.N.hi.lo, N chosen once per mesh) is an address that an
// ordinary user may bind on the host without a route, so the proxy's ports are
// reachable from everywhere. The case IP (10.77.hi.lo, fd77::hi:lo) is the
// address on the program's own interface: it is what the program sees as its
// own and as its clients' address, since programs treat 127/8 as local.
const (
	caseNet4 = 10<<24 | 77<<16
	// MeshNetFirst and MeshNetLast bound the second byte of a mesh's network.
	MeshNetFirst = 77
	MeshNetLast  = 127
)

// Index numbers the workloads of one local mesh: 2 … 65533. It fixes the
// workload's addresses and stays the same for the life of the pod's name.
type Index uint16

// Valid reports whether i names a workload address.
func (i Index) Valid() bool { return i >= 2 && i < 65534 }

// IP is the address of workload i in mesh network n (127.n.hi.lo).
func IP(n uint8, i Index) netip.Addr {
	return netip.AddrFrom4([4]byte{127, n, byte(i >> 8), byte(i)})
}

// CaseIP4 is the IPv4 address of workload i inside its case.
func CaseIP4(i Index) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 77, byte(i >> 8), byte(i)})
}

// CaseIP6 is the IPv6 address of workload i inside its case.
func CaseIP6(i Index) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x77, 14: byte(i >> 8), 15: byte(i)})
}

// IndexOf finds the workload index behind a mesh or case address; ok is false
// for every other address. n is the mesh's network byte.
func IndexOf(n uint8, a netip.Addr) (i Index, ok bool) {
	a = a.Unmap()
	if a.Is4() {
		b := a.As4()
		i = Index(uint16(b[2])<<8 | uint16(b[3]))
		isMesh := b[0] == 127 && b[1] == n
		isCase := b[0] == byte(caseNet4>>24) && b[1] == byte(caseNet4>>16&0xff)
		return i, (isMesh || isCase) && i.Valid()
	}
	b := a.As16()
	i = Index(uint16(b[14])<<8 | uint16(b[15]))
	if a != CaseIP6(i) {
		return 0, false
	}
	return i, i.Valid()
}

// ServiceVIP4 and ServiceVIP6 are the k-th virtual service addresses, from the
// ranges that Istio allocates from (240.240.0.0/16 and 2001:2::/48).
// k must be 1 … 65534.
func ServiceVIP4(k uint16) netip.Addr {
	return netip.AddrFrom4([4]byte{240, 240, byte(k >> 8), byte(k)})
}

// ServiceVIP6 is the IPv6 twin of ServiceVIP4.
func ServiceVIP6(k uint16) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x00, 0x02, 14: byte(k >> 8), 15: byte(k)})
}

// IsServiceVIP reports whether a is from the ranges of virtual service addresses:
// nobody outside the mesh has such an address.
func IsServiceVIP(a netip.Addr) bool {
	a = a.Unmap()
	if a.Is4() {
		b := a.As4()
		return a == ServiceVIP4(uint16(b[2])<<8|uint16(b[3]))
	}
	b := a.As16()
	return a.IsValid() && a == ServiceVIP6(uint16(b[14])<<8|uint16(b[15]))
}

// OwnPrefixes are the ranges that mean something inside cases only: those of the
// case addresses and of the virtual service addresses.
func OwnPrefixes() []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(CaseIP4(0), 16), netip.PrefixFrom(CaseIP6(0), 112),
		netip.PrefixFrom(ServiceVIP4(0), 16), netip.PrefixFrom(ServiceVIP6(0), 48),
	}
}

// WirePort is the port on the mesh IP where the i-th declared port of a
// workload is served by its proxy.
func WirePort(i int) (uint16, error) {
	if i < 0 || i >= MaxWirePorts {
		return 0, fmt.Errorf("port number %d of a workload: at most %d ports are supported", i+1, MaxWirePorts)
	}
	return uint16(PortWireBase + i), nil
}
