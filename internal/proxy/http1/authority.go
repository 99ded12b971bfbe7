package http1

import (
	"bytes"
	"net/netip"
)

// checkAuthority refuses what is not a host with or without a port (uri-host [ ":" port ]
// of RFC 9112, 3.2): where recipients disagree about the host's end, so do their routes.
func checkAuthority(a []byte) error {
	host := hostLen(a)
	if host == 0 || !optionalPort(a[host:]) {
		return ErrHost
	}
	return nil
}

// hostLen is the length of the host that a begins with (RFC 3986, 3.2.2), 0 if it begins
// with none. What stands between brackets need not be an address.
func hostLen(a []byte) int {
	if len(a) > 0 && a[0] == '[' {
		end := bytes.IndexByte(a, ']')
		if end < 2 {
			return 0
		}
		for _, c := range a[1:end] {
			if !isHost[c] && c != ':' && c != '%' {
				return 0
			}
		}
		return end + 1
	}
	n := 0
	for n < len(a) {
		switch {
		case isHost[a[n]]:
			n++
		case a[n] == '%' && n+2 < len(a) && unhex(a[n+1]) <= 15 && unhex(a[n+2]) <= 15:
			n += 3
		default:
			return n
		}
	}
	return n
}

func optionalPort(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	if b[0] != ':' {
		return false
	}
	for _, c := range b[1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// tunnelEnd is the length of the host in the target of CONNECT (authority-form of RFC 9112,
// 3.2.3). The port must be there, and the host be one that can be connected to: a
// name without escapes, or an address.
func tunnelEnd(target []byte) (host int, ok bool) {
	host = hostLen(target)
	if host == 0 || host == len(target) || target[host] != ':' || bytes.IndexByte(target, '%') >= 0 {
		return 0, false
	}
	if port, ok := parseLength(target[host+1:]); !ok || port == 0 || port > 65535 {
		return 0, false
	}
	if target[0] == '[' {
		if address, err := netip.ParseAddr(string(target[1 : host-1])); err != nil || !address.Is6() {
			return 0, false
		}
	}
	return host, true
}
