package proxy

import (
	"context"
	"net"
)

// serveTCP forwards an opaque connection to c.target.cluster (c.choose, dial)
// and accounts for it. The bytes read so far are in c.in.
func (c *conn) serveTCP(_ context.Context) {}

// serveUnknown finds out what a connection speaks whose port is not declared,
// and goes on with serveHTTP, serveHTTP2 or serveTCP; the bytes read meanwhile
// are left in c.in.
func (c *conn) serveUnknown(_ context.Context) {}

// streamConn is one end of a relay: a TCP connection, in all but tests.
type streamConn = net.Conn

// tunnel is what relay reports.
type tunnel struct {
	sent     uint64 // bytes to the client
	received uint64 // bytes from the client
}

// relay copies bytes both ways between the client and up until both sides have
// ended, passing on the end of each direction by itself. First it writes what
// is in c.in to up, and what is in fromUp to the client. live, if not nil, is
// called with what was moved since its last call, in either direction; it may
// be called from two goroutines. Both connections are closed by the caller.
// It serves opaque connections, upgrades (101) and CONNECT.
func (c *conn) relay(_ context.Context, up streamConn, fromUp []byte, live func(sent, received uint64)) tunnel {
	_, _, _ = up, fromUp, live
	return tunnel{}
}
