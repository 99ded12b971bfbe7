package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/telemetry"
	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

// The PROXY protocol, version 2 (section 2.2 of its specification, by HAProxy's
// authors): how a proxy tells another one which address the client wanted. Proxies
// tell each other ports that no workload declares, which have no wire port.
const (
	headerMark  = "\r\n\r\n\x00\r\nQUIT\n"
	headerFixed = len(headerMark) + 4

	headerProxied = 0x21 // version 2, on behalf of somebody else
	headerTCP4    = 0x11
	headerTCP6    = 0x21

	// maxHeader bounds what follows the addresses: extensions, which are ignored.
	maxHeader = 512
	// headerTime is how long a header may take: it comes with the connection.
	headerTime = 5 * time.Second
)

var (
	errNoHeader    = errors.New("the connection does not begin with a PROXY protocol header of version 2 for TCP")
	errLongHeader  = fmt.Errorf("the PROXY protocol header is longer than %d bytes", maxHeader)
	errShortHeader = errors.New("the PROXY protocol header is too short for its addresses")
)

// header is that of a connection from source to target, which are of one family. An
// invalid source is written as the unspecified address.
func header(source netip.Addr, target netip.AddrPort) []byte {
	family, size := byte(headerTCP4), 2*4+2*2
	if !source.IsValid() {
		source = netip.IPv4Unspecified()
	}
	if target.Addr().Is6() {
		family, size = headerTCP6, 2*16+2*2
		source = netip.AddrFrom16(source.As16())
	}
	b := append([]byte(headerMark), headerProxied, family)
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	b = append(b, source.AsSlice()...)
	b = append(b, target.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, 0)
	return binary.BigEndian.AppendUint16(b, target.Port())
}

// parseHeader reads the target of the header that b begins with, and the header's
// length; 0 without an error means that more bytes are needed.
func parseHeader(b []byte) (target netip.AddrPort, n int, err error) {
	known := min(len(b), len(headerMark))
	if !bytes.Equal(b[:known], []byte(headerMark[:known])) {
		return target, 0, errNoHeader
	}
	if len(b) < headerFixed {
		return target, 0, nil
	}
	family := b[len(headerMark)+1]
	if b[len(headerMark)] != headerProxied || family != headerTCP4 && family != headerTCP6 {
		return target, 0, errNoHeader
	}
	length := 4
	if family == headerTCP6 {
		length = 16
	}
	n = headerFixed + int(binary.BigEndian.Uint16(b[headerFixed-2:]))
	switch {
	case n > maxHeader:
		return target, 0, errLongHeader
	case n < headerFixed+2*length+2*2:
		return target, 0, errShortHeader
	case len(b) < n:
		return target, 0, nil
	}
	addresses := b[headerFixed:n]
	addr, _ := netip.AddrFromSlice(addresses[length : 2*length])
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(addresses[2*length+2:])), n, nil
}

// readHeader waits for the header that says which address of the workload is wanted,
// and makes that the destination of c. It reports false when there is none, and then
// the client sees a reset.
func (c *conn) readHeader() bool {
	began := telemetry.Now()
	target, err := c.awaitHeader()
	if self := &c.p.o.Self; err == nil && target.Addr() != self.CaseIP && target.Addr() != self.CaseIP6 {
		err = fmt.Errorf("the PROXY protocol header names %s, which is no address of this workload", target)
	}
	if err != nil {
		c.p.o.Recorder.Detected(resultNoHeader, time.Duration(telemetry.Now()-began).Seconds())
		c.p.o.Log.Debug("an inbound connection was refused", "source", c.source, "error", err)
		c.reset()
		return false
	}
	c.local = target
	return true
}

func (c *conn) awaitHeader() (target netip.AddrPort, err error) {
	_ = c.nc.SetReadDeadline(time.Now().Add(headerTime)) // fails only when closed, which the read reports
	for {
		if _, err := c.down.Read(&c.in, nil); err != nil {
			return target, err
		}
		target, n, err := parseHeader(c.in.Bytes())
		if err != nil || n > 0 {
			c.in.Skip(n)
			_ = c.nc.SetReadDeadline(time.Time{}) // as above
			return target, err
		}
	}
}

// dialUndeclared connects to a port that a workload does not declare: via the listener
// that its proxy has for all of these.
func (p *Proxy) dialUndeclared(via, target netip.AddrPort) upstream.DialFunc {
	source := p.o.Self.CaseIP
	if target.Addr().Is6() {
		source = p.o.Self.CaseIP6
	}
	dial := p.dialPeer(via)
	first := header(source, target)
	return func(ctx context.Context) (net.Conn, error) {
		nc, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		// It is the first of the connection: the socket has room for it.
		if _, err := nc.Write(first); err != nil {
			nc.Close()
			return nil, fmt.Errorf("send the PROXY protocol header: %w", err)
		}
		return nc, nil
	}
}
