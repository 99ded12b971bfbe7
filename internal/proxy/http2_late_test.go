package proxy

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// h2Do sends a request through r and reads the whole response.
func (r *rig) h2Do(ctx context.Context, t *testing.T, cl *http.Client, method, path string) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "http://web"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := cl.Do(req)
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	return res, string(body), err
}

// TestHTTP2NotModified: the Content-Length of a 304 is of what it does not send.
func TestHTTP2NotModified(t *testing.T) {
	at := h2Origin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "77")
		w.Header().Set("Etag", "x")
		w.WriteHeader(http.StatusNotModified)
	})
	r := newRig(t, mesh.ProtocolHTTP2, at)
	cl := r.h2Client(t)
	for range 3 {
		res, _, err := r.h2Do(t.Context(), t, cl, http.MethodGet, "/")
		// The client's own library misses the body.
		if res == nil || !errors.Is(err, io.ErrUnexpectedEOF) || res.StatusCode != http.StatusNotModified || res.Header.Get("Etag") != "x" || res.Header.Get("Content-Length") != "77" {
			t.Fatalf("%+v, %v", res, err)
		}
	}
	r.wantSeries(t, "3", "istio_requests_total", "response_code=304", "response_flags=-")
}

// TestHTTP2TrailerThatNeverCame: a trailer that was announced and not sent ends the
// response all the same.
func TestHTTP2TrailerThatNeverCame(t *testing.T) {
	at := h2Origin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Late, X-Last")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Last", "z")
		if r.URL.Path == "/none" {
			w.Header().Del("X-Last")
		}
	})
	r := newRig(t, mesh.ProtocolHTTP2, at)
	cl := r.h2Client(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for path, want := range map[string]string{"/one": "z", "/none": ""} {
		res, body, err := r.h2Do(ctx, t, cl, http.MethodGet, path)
		if err != nil || body != "body" || res.Trailer.Get("X-Last") != want {
			t.Fatalf("%s: %q, %+v, %v", path, body, res, err)
		}
	}
}

// TestHTTP2UnreadStreams: clients that do not read their responses do not hold up
// others to the same endpoint.
func TestHTTP2UnreadStreams(t *testing.T) {
	at := h2Origin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/small" {
			_, _ = io.WriteString(w, "small")
			return
		}
		for piece := make([]byte, h2StreamWindow); ; {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})
	r := newRig(t, mesh.ProtocolHTTP2, at)
	cl := r.h2Client(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range 64 { // with the smallest windows, and none of it is read
		h2Raw(t, r.dial(t)).request(t, 1, true, ":method", "GET", ":scheme", "http", ":authority", "web", ":path", "/large")
	}
	for range 300 { // the first ones may come before the others are stuck
		if _, body, err := r.h2Do(ctx, t, cl, http.MethodGet, "/small"); body != "small" || err != nil {
			t.Fatalf("%q, %v", body, err)
		}
	}
}

// TestHTTP2InterimAndCancel: interim responses may come when the stream that they are
// for ends, and must not touch what is no longer theirs.
func TestHTTP2InterimAndCancel(t *testing.T) {
	at := h2Origin(t, func(w http.ResponseWriter, r *http.Request) {
		for i := range 40 {
			w.Header().Set("X-A"+strconv.Itoa(i), "1")
		}
		for range maxInterim {
			w.WriteHeader(http.StatusEarlyHints)
		}
		if r.URL.Path == "/more" {
			w.WriteHeader(http.StatusEarlyHints)
		}
	})
	r := newRig(t, mesh.ProtocolHTTP2, at)
	cl := r.h2Client(t)
	if res, _, err := r.h2Do(t.Context(), t, cl, http.MethodGet, "/"); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", res, err)
	}
	if res, _, err := r.h2Do(t.Context(), t, cl, http.MethodGet, "/more"); err != nil || res.StatusCode != http.StatusServiceUnavailable && res.StatusCode != http.StatusBadGateway {
		t.Fatalf("one too many: %v, %v", res, err)
	}
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			cl := r.h2Client(t)
			for i := range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(50*(1+i%40))*time.Microsecond)
				if _, _, err := r.h2Do(ctx, t, cl, http.MethodGet, "/"); err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	clients.Wait()
}

// TestHTTP2InterimUnread: a client that does not read keeps no other waiting, though
// interim responses for it go on coming.
func TestHTTP2InterimUnread(t *testing.T) {
	at := h2Origin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			return
		}
		w.Header()["Content-Length"] = nil // makes the library copy the others, which change
		for range maxInterim {
			for i := range 30 {
				w.Header().Set("X-A"+strconv.Itoa(i), rand.Text())
			}
			w.WriteHeader(http.StatusEarlyHints)
		}
	})
	r := newRig(t, mesh.ProtocolHTTP2, at)
	f := h2Raw(t, r.dial(t))
	for i := range uint32(900) { // some 10 MB of heads if all came, more than sockets hold
		f.request(t, 1+2*i, true, ":method", "GET", ":scheme", "http", ":authority", "web", ":path", "/flood")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cl := r.h2Client(t)
	for range 300 { // the first ones may come before the other is stuck
		if res, _, err := r.h2Do(ctx, t, cl, http.MethodGet, "/"); err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%v, %v", res, err)
		}
	}
}
