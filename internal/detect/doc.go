// Package detect tells from the first bytes of a connection what it speaks.
//
// It hides the signatures of protocols. It is pure: no state, no goroutines, no
// retained slices (names found in the bytes are copied), so every function may
// be called by any number of goroutines.
//
// Invariant: an answer never changes when more bytes of the same connection
// arrive. A caller therefore asks again with a longer prefix until an answer is
// decided, and it does not matter how the network cut the bytes. The fuzz
// target holds this for arbitrary bytes. There is one exception: a request whose
// method nobody has registered is HTTP only if the first look shows its whole
// first line, since no other protocol shall wait for that.
package detect
