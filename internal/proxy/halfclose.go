package proxy

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// A client that has ended its sending side may have closed its socket, because
// it gave up, or only half of it, and still want the response: on the wire the
// two look alike until something is sent to it. The clients of a workload are
// programs of this machine, though, so the kernel can be asked: a socket that
// was closed belongs to no process any more.

// halfOpen are the ends of the connections in one network namespace whose owners
// have closed the sending side and can still receive.
type halfOpen map[netip.AddrPort]struct{}

// States of a socket that has sent its FIN but not received its peer's, as in
// the column st of /proc/net/tcp (enum in the kernel's include/net/tcp_states.h).
const (
	stateFinWait1 = "04"
	stateFinWait2 = "05"
)

// readHalfOpen reads the namespace of the process pid; 0 is this process's.
func readHalfOpen(pid int) (halfOpen, error) {
	process := "self"
	if pid != 0 {
		process = strconv.Itoa(pid)
	}
	found := halfOpen{}
	for _, table := range []string{"tcp", "tcp6"} {
		if err := found.read("/proc/" + process + "/net/" + table); err != nil && !os.IsNotExist(err) { // no IPv6
			return nil, err
		}
	}
	return found, nil
}

func (h halfOpen) read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); ; {
		if !lines.Scan() {
			return lines.Err()
		}
		// proc_net(5): number, local address, remote address, state, two queues,
		// timer, retransmissions, user, timeout, inode.
		const local, state, inode = 1, 3, 9
		row := strings.Fields(lines.Text())
		if len(row) <= inode || row[inode] == "0" || row[state] != stateFinWait1 && row[state] != stateFinWait2 {
			continue
		}
		if at, ok := parseProcAddress(row[local]); ok {
			h[at] = struct{}{}
		}
	}
}

// parseProcAddress reads an address as the kernel prints it there: words of four
// bytes as numbers of this machine, and the port.
func parseProcAddress(s string) (netip.AddrPort, bool) {
	address, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(address)
	if err != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for word := range slices.Chunk(b, 4) {
		binary.BigEndian.PutUint32(word, binary.NativeEndian.Uint32(word))
	}
	at, ok := netip.AddrFromSlice(b)
	n, err := strconv.ParseUint(port, 16, 16)
	return netip.AddrPortFrom(at.Unmap(), uint16(n)), ok && err == nil
}

// halfOpens are the tables that one round of the reaper has needed so far.
type halfOpens struct {
	p     *Proxy
	read  [2]bool // by mesh.Direction
	table [2]halfOpen
}

// wants reports whether the client of c, which has ended its sending side, can
// still receive. known is false when that cannot be found out here.
func (h *halfOpens) wants(c *conn) (open, known bool) {
	pid := 0
	if c.dir == mesh.Outbound {
		pid = h.p.o.CasePID
	} else if !c.source.Addr().IsLoopback() {
		return false, false // it may be on another machine
	}
	if !h.read[c.dir] {
		h.read[c.dir] = true
		h.table[c.dir], _ = readHalfOpen(pid) // the case may be gone: then nothing is known
	}
	if h.table[c.dir] == nil {
		return false, false
	}
	_, open = h.table[c.dir][netip.AddrPortFrom(c.source.Addr().Unmap(), c.source.Port())]
	return open, true
}
