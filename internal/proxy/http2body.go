package proxy

import (
	"errors"
	"io"
	"sync"
)

// h2replay is how much of a request body is kept, in bytes, so that the request
// can be sent again when an endpoint says that it did not act on it.
const h2replay = 64 << 10

// h2body is the request body on its way to the upstream. Each attempt reads it
// from its beginning through a handle of its own; the handle before becomes
// stale. What comes from the client is accounted for once.
type h2body struct {
	src  io.Reader
	read func(p []byte) // told what has come from the client, in order

	mu      sync.Mutex // guards what follows; not held while reading src
	changed sync.Cond
	current *h2bodyHandle
	reading bool   // a handle, perhaps a stale one, is in src.Read
	keep    bool   // another attempt is possible: log holds everything
	log     []byte // bytes from position base on
	base    int
	err     error // of src, final
}

var (
	errNotKept = errors.New("the request body can not be sent again")
	errStale   = errors.New("the request is being sent again")
)

func newH2Body(src io.Reader, read func(p []byte)) *h2body {
	b := &h2body{src: src, read: read, keep: true}
	b.changed.L = &b.mu
	return b
}

// handle is the body from its beginning; an error when that is gone.
func (b *h2body) handle() (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.keep {
		return nil, errNotKept
	}
	b.current = &h2bodyHandle{b: b}
	b.changed.Broadcast()
	return b.current, nil
}

// forget gives up sending again: the response has begun.
func (b *h2body) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keep = false
	b.trim()
}

// failed is the error that ended the body early, or nil.
func (b *h2body) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if errors.Is(b.err, io.EOF) {
		return nil
	}
	return b.err
}

// trim drops what nobody will read any more. The caller holds b.mu.
func (b *h2body) trim() {
	if b.keep || b.current == nil {
		return
	}
	b.log = b.log[b.current.off-b.base:]
	b.base = b.current.off
	if len(b.log) == 0 {
		b.log = nil
	}
}

// h2bodyHandle is the body as one attempt sees it.
type h2bodyHandle struct {
	b   *h2body
	off int // guarded by b.mu
}

// Read implements io.Reader.
func (h *h2bodyHandle) Read(p []byte) (int, error) {
	b := h.b
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		if h != b.current {
			return 0, errStale
		}
		if at := h.off - b.base; at < len(b.log) {
			n := copy(p, b.log[at:])
			h.off += n
			b.trim()
			return n, nil
		}
		if b.err != nil {
			return 0, b.err
		}
		if !b.reading {
			break
		}
		b.changed.Wait()
	}
	b.reading = true
	b.mu.Unlock()
	n, err := b.src.Read(p)
	if n > 0 {
		b.read(p[:n])
	}
	b.mu.Lock()
	b.reading = false
	b.err = err
	b.changed.Broadcast()
	if h == b.current {
		h.off += n
		if !b.keep { // nobody else will want these bytes
			b.base += n
			return n, err
		}
	}
	b.log = append(b.log, p[:n]...)
	if len(b.log) > h2replay {
		b.keep = false
		b.trim()
	}
	if h != b.current {
		return 0, errStale
	}
	return n, err
}

// Close implements io.Closer. The client's stream ends the body itself:
// another attempt may read on.
func (h *h2bodyHandle) Close() error { return nil }
