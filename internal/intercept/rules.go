package intercept

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Ports of our listeners inside the case; the same as Istio's.
const (
	portOutbound = 15001
	portDNS      = 15053
)

// ownMark is the firewall mark of our own sockets inside the case, which are
// never redirected. The value is ztunnel's.
const ownMark = 0x539

const (
	protoTCP = unix.IPPROTO_TCP
	protoUDP = unix.IPPROTO_UDP

	// Registers of nf_tables: regAddr and regPort are two of the four 16-byte
	// ones, so that an IPv6 address fits.
	regData = 1
	regAddr = 2
	regPort = 3

	redirFlagProto = 2 // NF_NAT_RANGE_PROTO_SPECIFIED
)

// tableName is our table in the network namespace of a case.
const tableName = "vitrine"

// family is an IP version as nf_tables and socket(2) know it.
type family struct {
	nfproto    byte
	daddrAt    uint32 // offset of the destination in the IP header
	addrLen    uint32
	loopback   netip.Addr
	loopPrefix netip.Prefix
	multicast  netip.Prefix
}

func ipv4() family {
	return family{
		nfproto: unix.NFPROTO_IPV4, daddrAt: 16, addrLen: 4,
		loopback:   ipv4Loopback(),
		loopPrefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8),
		multicast:  netip.PrefixFrom(netip.AddrFrom4([4]byte{224}), 4),
	}
}

func ipv6() family {
	return family{
		nfproto: unix.NFPROTO_IPV6, daddrAt: 24, addrLen: 16,
		loopback:   netip.IPv6Loopback(),
		loopPrefix: netip.PrefixFrom(netip.IPv6Loopback(), 128),
		multicast:  netip.PrefixFrom(netip.AddrFrom16([16]byte{0xff}), 8),
	}
}

// ruleset is what the kernel is asked for.
type ruleset struct {
	ip4       netip.Addr
	ip6       netip.Addr // invalid without IPv6
	localhost bool       // send connections to unserved localhost ports to us
	udp       bool       // send UDP that leaves the case to us
}

// load puts the rules into the current network namespace in one transaction.
func (r ruleset) load() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nf_tables: %w", err)
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: tableName})
	r.addOutput(conn, table)
	if r.localhost {
		r.addLocalhost(conn, table)
	}
	if r.udp {
		r.addUDP(conn, table)
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nf_tables transaction: %w", err)
	}
	return nil
}

// loadBest loads as much as the kernel can do and says what it cannot.
func (r ruleset) loadBest() (loaded ruleset, notes []string, err error) {
	full := r
	if err = r.load(); err == nil {
		return r, nil, nil
	}
	first := err
	r.udp = false
	if err = r.load(); err == nil {
		return r, []string{"UDP does not pass through the proxy: " + first.Error() + " (modprobe nft_tproxy)"}, nil
	}
	r.udp, r.localhost = full.udp, false
	if err = r.load(); err == nil {
		return r, []string{"localhost services of the host are not reachable: " + first.Error() + " (modprobe nft_socket)"}, nil
	}
	r.udp = false
	if err = r.load(); err == nil {
		return r, []string{"neither UDP nor localhost services of the host are reachable: " + first.Error() +
			" (modprobe -a nft_tproxy nft_socket)"}, nil
	}
	return r, nil, first
}

// addOutput redirects what the programs open. DNS comes before the exemption
// of loopback, so that resolvers on 127.0.0.53 are caught. Everything is routed
// over lo (see setupLoopback), so the interface says nothing.
func (r ruleset) addOutput(conn *nftables.Conn, table *nftables.Table) {
	chain := conn.AddChain(&nftables.Chain{
		Name: "output", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
	})
	add := func(parts ...[]expr.Any) { addRule(conn, chain, parts...) }
	add(markIsOurs(), verdict(expr.VerdictReturn))
	add(l4proto(protoUDP), dport(53), redirect(portDNS))
	add(l4proto(protoTCP), dport(53), redirect(portDNS))
	for _, f := range r.families() {
		add(f.proto(), f.daddrIn(f.loopPrefix), verdict(expr.VerdictReturn))
		add(f.proto(), f.daddrIn(r.own(f)), verdict(expr.VerdictReturn))
	}
	add(l4proto(protoTCP), redirect(portOutbound))
}

// addLocalhost catches new connections to a loopback port that nothing inside
// the case listens on: they mean a service of the host.
func (r ruleset) addLocalhost(conn *nftables.Conn, table *nftables.Table) {
	chain := conn.AddChain(preroutingChain("localhost", table, -149))
	add := func(parts ...[]expr.Any) { addRule(conn, chain, parts...) }
	add(markIsOurs(), verdict(expr.VerdictReturn))
	for _, f := range r.families() {
		syn := join(f.proto(), l4proto(protoTCP), f.daddrIn(f.loopPrefix), tcpSYN())
		add(syn, socketWildcard(0), verdict(expr.VerdictReturn))
		add(syn, socketWildcard(1), verdict(expr.VerdictReturn))
		add(syn, f.tproxy(portOutbound), verdict(expr.VerdictAccept))
	}
}

// addUDP catches datagrams that leave the case: to foreign addresses, and to
// loopback ports without a socket inside.
func (r ruleset) addUDP(conn *nftables.Conn, table *nftables.Table) {
	chain := conn.AddChain(preroutingChain("udp", table, -148))
	add := func(parts ...[]expr.Any) { addRule(conn, chain, parts...) }
	add(markIsOurs(), verdict(expr.VerdictReturn))
	for _, f := range r.families() {
		udp := join(f.proto(), l4proto(protoUDP))
		add(udp, f.daddrIn(r.own(f)), verdict(expr.VerdictReturn))
		add(udp, f.daddrIn(f.multicast), verdict(expr.VerdictReturn))
		add(udp, f.daddrIn(f.loopPrefix), socketWildcard(0), verdict(expr.VerdictReturn))
		add(udp, f.daddrIn(f.loopPrefix), socketWildcard(1), verdict(expr.VerdictReturn))
		add(udp, f.tproxy(portOutbound), verdict(expr.VerdictAccept))
	}
}

// refuseUDP answers datagrams to the prefixes, the case's own address excepted,
// with "port unreachable". It is a transaction of its own: without it they are
// dropped by the relay.
func (r ruleset) refuseUDP(prefixes []netip.Prefix) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nf_tables: %w", err)
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: tableName})
	// On the way in again, since on the way out the program would see "operation
	// not permitted"; before the relay gets them.
	chain := conn.AddChain(preroutingChain("refuse", table, -150))
	add := func(parts ...[]expr.Any) { addRule(conn, chain, parts...) }
	add(markIsOurs(), verdict(expr.VerdictReturn))
	for _, f := range r.families() {
		udp := join(f.proto(), l4proto(protoUDP))
		add(udp, f.daddrIn(r.own(f)), verdict(expr.VerdictReturn))
		for _, p := range prefixes {
			if p.Addr().BitLen() == int(f.addrLen)*8 {
				add(udp, f.daddrIn(p), []expr.Any{&expr.Reject{
					Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH,
				}})
			}
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nf_tables transaction: %w", err)
	}
	return nil
}

func (r ruleset) families() []family {
	if !r.ip6.IsValid() {
		return []family{ipv4()}
	}
	return []family{ipv4(), ipv6()}
}

// own is the case's own address as a prefix.
func (r ruleset) own(f family) netip.Prefix {
	a := r.ip4
	if f.addrLen == 16 {
		a = r.ip6
	}
	return netip.PrefixFrom(a, a.BitLen())
}

func preroutingChain(name string, table *nftables.Table, priority nftables.ChainPriority) *nftables.Chain {
	return &nftables.Chain{
		Name: name, Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: new(priority),
	}
}

func addRule(conn *nftables.Conn, chain *nftables.Chain, parts ...[]expr.Any) {
	conn.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: join(parts...)})
}

func join(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func (f family) proto() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: regData},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regData, Data: []byte{f.nfproto}},
	}
}

// daddrIn matches destinations in p; a proto match must come before it.
func (f family) daddrIn(p netip.Prefix) []expr.Any {
	load := &expr.Payload{DestRegister: regData, Base: expr.PayloadBaseNetworkHeader, Offset: f.daddrAt, Len: f.addrLen}
	cmp := &expr.Cmp{Op: expr.CmpOpEq, Register: regData, Data: p.Masked().Addr().AsSlice()}
	if p.IsSingleIP() {
		return []expr.Any{load, cmp}
	}
	mask := make([]byte, f.addrLen)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return []expr.Any{load, &expr.Bitwise{
		SourceRegister: regData, DestRegister: regData, Len: f.addrLen,
		Mask: mask, Xor: make([]byte, f.addrLen),
	}, cmp}
}

// tproxy hands the packet to the transparent socket on port of the loopback
// address, or to a connected one if there is. It leaves the destination as it is.
func (f family) tproxy(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: regAddr, Data: f.loopback.AsSlice()},
		&expr.Immediate{Register: regPort, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.TProxy{Family: f.nfproto, TableFamily: unix.NFPROTO_INET, RegAddr: regAddr, RegPort: regPort},
	}
}

func markIsOurs() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: regData},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regData, Data: binaryutil.NativeEndian.PutUint32(ownMark)},
	}
}

func l4proto(proto byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: regData},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regData, Data: []byte{proto}},
	}
}

func dport(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: regData, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regData, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

// tcpSYN matches the first packet of a connection.
func tcpSYN() []expr.Any {
	const fin, syn, rst, ack = 0x01, 0x02, 0x04, 0x10
	return []expr.Any{
		&expr.Payload{DestRegister: regData, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{
			SourceRegister: regData, DestRegister: regData, Len: 1,
			Mask: []byte{fin | syn | rst | ack}, Xor: []byte{0},
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regData, Data: []byte{syn}},
	}
}

// socketWildcard matches if a socket would take the packet and is bound to one
// address (0) or to all (1).
func socketWildcard(wildcard byte) []expr.Any {
	return []expr.Any{
		&expr.Socket{Key: expr.SocketKeyWildcard, Register: regData},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regData, Data: []byte{wildcard}},
	}
}

func redirect(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: regPort, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Redir{RegisterProtoMin: regPort, RegisterProtoMax: regPort, Flags: redirFlagProto},
	}
}

func verdict(kind expr.VerdictKind) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind}}
}
