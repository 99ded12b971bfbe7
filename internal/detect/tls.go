package detect

import (
	"encoding/binary"
	"slices"
	"strings"
)

// Numbers of RFC 8446 (TLS 1.3) and RFC 6066 (extensions).
const (
	recordHeader      = 5
	recordHandshake   = 0x16
	maxRecord         = 1 << 14
	typeClientHello   = 1
	extensionSNI      = 0
	sniHostName       = 0
	maxServerNameByte = 253
)

// clientHello recognises a TLS record with the start of a ClientHello.
func clientHello(prefix []byte) verdict {
	for i, b := range prefix[:min(len(prefix), recordHeader+1)] {
		ok := true
		switch i {
		case 0:
			ok = b == recordHandshake
		case 1:
			ok = b == 3
		case 2:
			ok = b <= 4
		case 4:
			n := int(binary.BigEndian.Uint16(prefix[3:]))
			ok = n > 0 && n <= maxRecord
		case recordHeader:
			ok = b == typeClientHello
		}
		if !ok {
			return no
		}
	}
	if len(prefix) <= recordHeader {
		return maybe
	}
	return yes
}

// parseTLS reads the server name from a ClientHello, which may be
// spread over several records. A damaged one is still TLS: that is for the
// server to answer.
func parseTLS(prefix []byte) (Result, bool) {
	body, v := helloBody(prefix)
	if v == maybe && len(prefix) < MaxPrefix {
		return Result{Kind: TLS}, false
	}
	r := Result{Kind: TLS}
	if v == yes {
		r.SNI = helloName(body)
	}
	return r, true
}

// helloBody joins the handshake message from its records, without its header.
func helloBody(prefix []byte) ([]byte, verdict) {
	var message []byte // stays a part of prefix while one record is enough
	for records := 0; ; records++ {
		if len(prefix) == 0 {
			return nil, maybe
		}
		if prefix[0] != recordHandshake {
			return nil, no
		}
		if len(prefix) < recordHeader {
			return nil, maybe
		}
		n := int(binary.BigEndian.Uint16(prefix[3:]))
		if n == 0 || n > maxRecord {
			return nil, no
		}
		have := prefix[recordHeader:min(len(prefix), recordHeader+n)]
		if records == 0 {
			message = slices.Clip(have) // appending must not write into prefix
		} else {
			message = append(message, have...)
		}
		if len(message) >= 4 {
			size := int(message[1])<<16 | int(message[2])<<8 | int(message[3])
			if len(message) >= 4+size {
				return message[4 : 4+size], yes
			}
		}
		if len(have) < n {
			return nil, maybe
		}
		prefix = prefix[recordHeader+n:]
	}
}

// cursor reads the length-prefixed vectors of TLS. A read beyond the end makes
// every later one fail.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || n > len(c.b) {
		c.bad = true
		return nil
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) uint(size int) int {
	n := 0
	for _, b := range c.take(size) {
		n = n<<8 | int(b)
	}
	return n
}

// vector reads a length of size bytes and that many bytes.
func (c *cursor) vector(size int) *cursor {
	b := c.take(c.uint(size))
	return &cursor{b: b, bad: c.bad}
}

// helloName is the first host name that the client asks for; "" if it names none.
func helloName(body []byte) string {
	hello := cursor{b: body}
	hello.take(2 + 32) // version, random
	hello.vector(1)    // session id
	hello.vector(2)    // cipher suites
	hello.vector(1)    // compression methods
	extensions := hello.vector(2)
	for !extensions.bad && len(extensions.b) > 0 {
		kind := extensions.uint(2)
		data := extensions.vector(2)
		if extensions.bad || kind != extensionSNI {
			continue
		}
		names := data.vector(2)
		for !names.bad && len(names.b) > 0 {
			nameType, name := names.uint(1), names.vector(2)
			if nameType != sniHostName || name.bad {
				continue
			}
			if sni := serverName(name.b); sni != "" {
				return sni
			}
		}
	}
	return ""
}

// serverName checks and normalises a name from the network: it ends in labels
// of metrics and in logs.
func serverName(b []byte) string {
	if len(b) > maxServerNameByte+1 {
		return ""
	}
	for _, c := range b {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
		if !ok {
			return ""
		}
	}
	return strings.ToLower(strings.TrimSuffix(string(b), "."))
}
