package proxy

import (
	"errors"
	"maps"
	"net/http"
	"sync"
)

var errManyInterims = errors.New("the endpoint sends too many 1xx responses")

// h2interims passes the 1xx responses of one stream on. They come on the goroutine that
// reads for all streams of the connection to the endpoint, which must neither wait for
// this stream's client nor touch its response once that has begun or the stream is over.
// The zero value is ready.
type h2interims struct {
	mu      sync.Mutex
	settled bool           // what comes now is too late
	heads   chan h2interim // nil until there is one; room for as many as may come
	count   int            // how many came
	written sync.WaitGroup // the goroutine that writes them
}

type h2interim struct {
	code   int
	header http.Header
}

// pass has w send one interim response in its turn; it does not wait for that.
func (i *h2interims) pass(w http.ResponseWriter, code int, header http.Header) error {
	if code == http.StatusContinue { // the library answers Expect itself
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.settled {
		return nil
	}
	if i.count++; i.count > maxInterim {
		return errManyInterims
	}
	if i.heads == nil {
		i.heads = make(chan h2interim, maxInterim)
		i.written.Go(func() { write(w, i.heads) })
	}
	i.heads <- h2interim{code, header.Clone()}
	return nil
}

func write(w http.ResponseWriter, heads <-chan h2interim) {
	for head := range heads {
		h := w.Header()
		maps.Copy(h, head.header)
		// It makes the library copy the map, which it may still read when the call has
		// ended, because the stream has.
		h["Content-Length"] = nil
		w.WriteHeader(head.code)
		clear(h)
	}
}

// settle waits until what came is sent, or the stream is over, and lets nothing more
// through. The stream's own goroutine calls it, before it touches the response.
func (i *h2interims) settle() {
	i.mu.Lock()
	i.settled = true
	if i.heads != nil {
		close(i.heads)
	}
	i.mu.Unlock()
	i.written.Wait()
}
