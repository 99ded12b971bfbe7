package proxy

import "context"

// serveHTTP serves a connection that is declared to speak HTTP: HTTP/2 if it
// opens with the preface, else HTTP/1. Bytes read so far are in c.in.
func (c *conn) serveHTTP(_ context.Context) {}
