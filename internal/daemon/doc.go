// Package daemon is the composition root of the vitrine binary: it knows every
// other package, and nothing else does. It turns a Config into the ordered list
// of components of a control plane, runs them, serves the control socket that
// the command line talks to, and holds the client side of that socket.
//
// A Mesh value belongs to one goroutine; what it serves is safe for any number.
package daemon
