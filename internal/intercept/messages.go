package intercept

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
)

// setupRequest is what P1 needs to build the case.
type setupRequest struct {
	Hostname   string
	IP4        netip.Addr
	IP6        netip.Addr
	MeshOnly   []netip.Prefix
	ResolvConf []byte // content of the case's /etc/resolv.conf
	Hosts      []byte // content of the case's /etc/hosts
	Files      []File
	Dirs       []Dir
	VolumeDir  string
	UID, GID   int // owner of the files
}

// setupReply comes with the listeners' descriptors, in the order of listenerKinds.
type setupReply struct {
	Sockets   []listenerKind
	IPv6      bool
	Localhost bool // localhost fall-through works
	UDP       bool // UDP passthrough works
	Notes     []string
}

// setupFailure names the step that failed.
type setupFailure struct {
	Step  string
	Error string
	Errno int // 0 if unknown
}

// programRequest is a program to start. Everything in it is bytes to execve(2),
// not text, so it travels as base64 and not as JSON strings.
type programRequest struct {
	Args       cStrings
	Env        cStrings
	Dir        cStrings // exactly one
	NewSession bool
}

// cStrings are strings without NUL bytes, in any encoding.
type cStrings []string

// MarshalJSON ends every string with a NUL byte and writes them in base64.
func (s cStrings) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	for _, v := range s {
		if strings.IndexByte(v, 0) >= 0 {
			return nil, fmt.Errorf("%q holds a NUL byte", v)
		}
		b.WriteString(v)
		b.WriteByte(0)
	}
	return json.Marshal(b.Bytes())
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (s *cStrings) UnmarshalJSON(data []byte) error {
	var raw []byte
	if err := json.Unmarshal(data, &raw); err != nil {
		return fmt.Errorf("decode strings: %w", err)
	}
	*s = nil
	for len(raw) > 0 {
		i := bytes.IndexByte(raw, 0)
		if i < 0 {
			return fmt.Errorf("decode strings: %q has no end", raw)
		}
		*s = append(*s, string(raw[:i]))
		raw = raw[i+1:]
	}
	return nil
}
