package proxy

import "context"

// serveHTTP2 serves a connection whose client opened with the HTTP/2 preface.
// The bytes read so far, preface included, are in c.in. It returns when the
// connection is done; the caller closes it.
//
// Contract: for each request, c.refresh, fill in a Head, Recorder.Begin,
// c.route (routing, balancing and the edge in one step), endpoint.Enter and
// Leave around the use of the endpoint, and Finish on every path. Sessions to
// an endpoint live in endpoint.Shared. While no stream is open the phase is
// phaseIdle, else phaseOpaque (c.watch.set). p.draining[c.dir].done closes
// when GOAWAY is due.
func (c *conn) serveHTTP2(_ context.Context) {}
