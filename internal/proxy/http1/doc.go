// Package http1 is a strict HTTP/1 codec that works in place and allocates
// nothing: heads are parsed inside the buffer they were read into, and written
// anew into a buffer of the caller.
//
// It hides the syntax of RFC 9112 and everything in which HTTP/1 parsers
// disagree. Its one promise: a message that is accepted here means the same to
// every recipient of what is written. What could be read in two ways is
// rejected with a RejectError, never repaired: two framings, obsolete line folding,
// bare LF and CR, spaces before colons, odd chunk sizes. The rules follow
// RFC 9110 and 9112 and, where they allow a choice, what Envoy refuses.
//
// The package does no I/O and knows no clock. Values belong to one goroutine.
package http1
