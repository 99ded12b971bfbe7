// Package loopback serves HTTP that asks for no password because only this
// machine reaches its address, and guards it. A browser on this machine reaches it, too,
// on behalf of every web site: through a name of the site's own that resolves to
// 127.0.0.1 (DNS rebinding), or by sending a form there.
//
// It hides by which names a machine calls itself, how a request of a foreign page
// is known, and what a client of such a server may take. A Guard may be used by
// any number of goroutines, each Serve has a listener of its own.
package loopback

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Guard lets a request through to next if its Host names this machine (a
// loopback address, localhost, a name below localhost as RFC 6761 section 6.3
// reserves them, or one of self) and if, unless it only reads, no page of another
// origin sent it (http.CrossOriginProtection). All others are answered 403.
func Guard(next http.Handler, self ...netip.Addr) http.Handler {
	sameOrigin := http.NewCrossOriginProtection().Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !names(r.Host, self) {
			http.Error(w, "host "+strings.ToValidUTF8(r.Host, "?")+" is not a name of this machine that is answered here, since a web page could use it, too: "+
				"ask for localhost or the address; a client in a container needs the network of the host (--network=host)", http.StatusForbidden)
			return
		}
		sameOrigin.ServeHTTP(w, r)
	})
}

// names reports whether a Host header names this machine.
func names(hostport string, self []netip.Addr) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if addr, err := netip.ParseAddr(host); err == nil {
		addr = addr.Unmap()
		return addr.IsLoopback() || slices.Contains(self, addr)
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
