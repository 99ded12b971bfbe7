package route

import "bytes"

// Match finds the route of a request, nil if there is none. authority is the
// :authority or Host of the request, path its target (":path", query included,
// or "*"). The virtual host is, in this order, the one that names the authority
// exactly, that names it without its port, that has the longest *.suffix of the
// host, and that of "*"; then its first route whose prefix fits decides, and
// other virtual hosts are not asked (as in Envoy). Letter case and a final dot of
// the host make no difference.
func (c *Config) Match(authority, path []byte) *Route {
	return c.find(authority).match(path)
}

// Memo remembers the virtual host of the last authority, as most clients name the
// same again and again on a connection. The zero Memo remembers nothing. It is for one
// goroutine.
type Memo struct {
	config    *Config
	authority []byte
	host      *virtualHost
}

// Match is c.Match. It keeps c alive until it is asked about another configuration.
func (m *Memo) Match(c *Config, authority, path []byte) *Route {
	if m.config != c || !bytes.Equal(m.authority, authority) {
		if len(authority) > maxDomain { // not worth the memory
			return c.Match(authority, path)
		}
		m.config, m.host = c, c.find(authority)
		m.authority = append(m.authority[:0], authority...)
	}
	return m.host.match(path)
}

// match finds the first route whose prefix fits; vh may be nil.
func (vh *virtualHost) match(path []byte) *Route {
	if vh == nil {
		return nil
	}
	for _, r := range vh.routes {
		// "/" stands for every request, "*" of OPTIONS and CONNECT's empty
		// path included.
		if len(r.prefix) == 1 || len(path) >= len(r.prefix) && string(path[:len(r.prefix)]) == r.prefix {
			return r
		}
	}
	return nil
}

// Name of the route configuration.
func (c *Config) Name() string { return c.name }

func (c *Config) find(authority []byte) *virtualHost {
	if len(authority) > maxDomain {
		return c.any
	}
	var buf [maxDomain]byte
	full, host := foldHost(&buf, authority)
	if vh := c.exact[string(full)]; vh != nil {
		return vh
	}
	if vh := c.exact[string(host)]; vh != nil {
		return vh
	}
	if len(c.suffixes) > 0 {
		// From left to right the first hit is the longest. The wildcard stands
		// for at least one byte, so a dot in front is skipped.
		for i := 1; i < len(host); i++ {
			if host[i] != '.' {
				continue
			}
			if vh := c.suffixes[string(host[i:])]; vh != nil {
				return vh
			}
		}
	}
	return c.any
}

// Host is the host that an authority names, as virtual hosts are told apart by: in
// lower case, without port and final dot. That of an authority too long for a name is
// "".
func Host(authority []byte) string {
	if len(authority) > maxDomain {
		return ""
	}
	var buf [maxDomain]byte
	_, host := foldHost(&buf, authority)
	return string(host)
}

// foldHost writes authority into buf in lower case and without the final dot of
// its host. full has the port, host has not.
func foldHost(buf *[maxDomain]byte, authority []byte) (full, host []byte) {
	name, port := splitPort(authority)
	name = bytes.TrimSuffix(name, []byte("."))
	out := buf[:0]
	for _, b := range name {
		if b >= 'A' && b <= 'Z' {
			b += 'a' - 'A'
		}
		out = append(out, b)
	}
	n := len(out)
	out = append(out, port...)
	return out, out[:n]
}

// splitPort cuts ":digits" from the end. The colons of an IPv6 address are inside
// brackets; without brackets, more than one colon is an address without a port.
func splitPort(authority []byte) (host, port []byte) {
	i := bytes.LastIndexByte(authority, ':')
	if i < 0 || bytes.IndexByte(authority[i:], ']') >= 0 {
		return authority, nil
	}
	for _, b := range authority[i+1:] {
		if b < '0' || b > '9' {
			return authority, nil
		}
	}
	if first := bytes.IndexByte(authority, ':'); first != i && authority[0] != '[' {
		return authority, nil
	}
	return authority[:i], authority[i:]
}

// Pick chooses one of r.Clusters by weight and returns its index. random must be
// uniform over all uint32 values; a weight w is hit with probability w/total to
// within total/2^32.
func (r *Route) Pick(random uint32) int {
	if len(r.Clusters) == 1 {
		return 0
	}
	point := uint64(random) * r.total >> 32
	for i := range r.Clusters {
		w := uint64(r.Clusters[i].Weight)
		if point < w {
			return i
		}
		point -= w
	}
	return len(r.Clusters) - 1 // not reached: point is below the sum
}
