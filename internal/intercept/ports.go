package intercept

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// ListeningPorts lists the TCP ports that programs in the case listen on, on
// whatever address, sorted.
func (c *Case) ListeningPorts() ([]uint16, error) {
	seen := map[uint16]bool{}
	for _, name := range []string{"tcp", "tcp6"} {
		path := fmt.Sprintf("/proc/%d/net/%s", c.pid, name)
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) && name == "tcp6" {
			continue // no IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("listening ports: %w", err)
		}
		for line := range strings.Lines(string(data)) {
			at, ok := parseListening(line)
			if ok && !ours(at) {
				seen[at.Port()] = true
			}
		}
	}
	ports := make([]uint16, 0, len(seen))
	for p := range seen {
		ports = append(ports, p)
	}
	slices.Sort(ports)
	return ports, nil
}

// ours reports whether at is one of our own listeners.
func ours(at netip.AddrPort) bool {
	return at.Addr().IsLoopback() && (at.Port() == portOutbound || at.Port() == portDNS)
}

// parseListening reads one line of /proc/net/tcp{,6} (proc_net_tcp.txt in the
// kernel's documentation); ok is false unless it is a socket in state LISTEN. The
// address is written as 32-bit words in host byte order.
func parseListening(line string) (at netip.AddrPort, ok bool) {
	const stateListen = "0A"
	fields := strings.Fields(line)
	if len(fields) < 4 || fields[3] != stateListen {
		return at, false
	}
	addrHex, portHex, found := strings.Cut(fields[1], ":")
	if !found {
		return at, false
	}
	raw, err := hex.DecodeString(addrHex)
	if err != nil || len(raw) != 4 && len(raw) != 16 {
		return at, false
	}
	port, err := strconv.ParseUint(portHex, 16, 16)
	if err != nil {
		return at, false
	}
	for i := 0; i < len(raw); i += 4 {
		word := binary.BigEndian.Uint32(raw[i:])
		binary.NativeEndian.PutUint32(raw[i:], word)
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, uint16(port)), true
}
