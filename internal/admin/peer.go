package admin

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// mayChange reports whether the client of req may use commands that change
// something: the port is on the host's loopback, which every user of the machine
// reaches, so only processes of the proxy's own user and of root may. Envoy's
// admin has the pod's network namespace around it instead.
func mayChange(req *http.Request) bool {
	local, ok := req.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return true // not from a connection, but from within this process
	}
	server, err1 := netip.ParseAddrPort(local.String())
	client, err2 := netip.ParseAddrPort(req.RemoteAddr)
	if err1 != nil || err2 != nil {
		return false
	}
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, err := os.ReadFile(name)
		if err != nil {
			continue // no IPv6
		}
		if uid, ok := ownerOf(string(table), client, server); ok {
			return uid == 0 || uid == os.Geteuid()
		}
	}
	return false
}

// ownerOf finds the user of the connected socket local, whose peer is remote, in
// a table of the kernel (proc_net_tcp.txt in its documentation). Only the state
// ESTABLISHED counts: sockets that nobody holds any more are shown as root's.
func ownerOf(table string, local, remote netip.AddrPort) (uid int, ok bool) {
	const (
		columnLocal, columnRemote, columnState, columnUID = 1, 2, 3, 7
		established                                       = "01"
	)
	locals, remotes := inTable(local), inTable(remote)
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) <= columnUID || f[columnState] != established {
			continue
		}
		for i := range locals {
			if f[columnLocal] != locals[i] || f[columnRemote] != remotes[i] {
				continue
			}
			uid, err := strconv.Atoi(f[columnUID])
			return uid, err == nil
		}
	}
	return 0, false
}

// inTable is how the kernel writes an address: 32-bit words in the order of the
// host. An IPv4 address has a second form, of sockets for IPv6 that use it.
func inTable(a netip.AddrPort) []string {
	written := func(addr []byte) string {
		var b strings.Builder
		for ; len(addr) > 0; addr = addr[4:] {
			fmt.Fprintf(&b, "%08X", binary.NativeEndian.Uint32(addr))
		}
		return fmt.Sprintf("%s:%04X", b.String(), a.Port())
	}
	long := a.Addr().As16()
	short := long[:]
	if ip := a.Addr().Unmap(); ip.Is4() {
		short = ip.AsSlice()
	}
	return []string{written(short), written(long[:])}
}
