package proxy

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

// The figures of an endpoint say what became of the requests sent to it, the same
// for both versions of HTTP.
func TestEndpointsKnowWhatBecameOfRequests(t *testing.T) {
	codes := map[string]int{"/": http.StatusOK, "/missing": http.StatusNotFound, "/bad": http.StatusInternalServerError}
	for _, proto := range []mesh.Protocol{mesh.ProtocolHTTP, mesh.ProtocolHTTP2} {
		t.Run(proto.String(), func(t *testing.T) {
			// run makes requests through a proxy and to an origin of their own, and reports
			// whether the origin got all of them.
			run := func(timeout time.Duration, givesUp bool, want upstream.Counts, paths ...string) bool {
				asked := make(chan struct{}, 10)
				var p http.Protocols
				p.SetHTTP1(true)
				p.SetUnencryptedHTTP2(true)
				at := webOrigin(t, &http.Server{Protocols: &p, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					asked <- struct{}{}
					if code := codes[r.URL.Path]; code != 0 {
						w.WriteHeader(code)
					} else {
						<-r.Context().Done()
					}
				})})
				h := startHop(t, webConfig(proto, timeout, at.String()), nil)
				counts := func() upstream.Counts { return h.p.Stats().Clusters[0].Endpoints[0].Counts }
				for i, path := range paths {
					c := h.dial(t)
					if proto == mesh.ProtocolHTTP2 {
						h2Raw(t, c).request(t, 1, true, ":method", "GET", ":scheme", "http", ":authority", "web", ":path", path)
					} else if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
						t.Fatal(err)
					}
					if givesUp {
						await(t, asked)
						asked <- struct{}{}
						c.SetLinger(0)
						c.Close()
					}
					h.lastEntry(t, i+1)
					until(t, path+" has ended", func() bool { return counts().ActiveRequests == 0 })
				}
				if len(asked) < len(paths) {
					return false
				}
				ignore := cmpopts.IgnoreFields(upstream.Counts{}, "ActiveConnections", "TotalConnection", "IdleConnections")
				if diff := cmp.Diff(want, counts(), ignore); diff != "" {
					t.Errorf("%v: (-want +got)\n%s", paths, diff)
				}
				return true
			}
			if !run(0, false, upstream.Counts{TotalRequests: 3, Succeeded: 2, FailedRequests: 1}, "/", "/missing", "/bad") {
				t.Error("the origin did not get all requests")
			}
			run(0, true, upstream.Counts{TotalRequests: 1}, "/late")
			// On a busy machine a short time is over before the request is sent on.
			for timeout := 100 * time.Millisecond; !run(timeout, false, upstream.Counts{TotalRequests: 1, FailedRequests: 1, Timeouts: 1}, "/late"); timeout *= 4 {
				if timeout > patience {
					t.Fatalf("the origin was never asked within %s", timeout)
				}
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, closedPort(t).String()), nil)
		c := h.dial(t)
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(c); err != nil {
			t.Fatal(err)
		}
		want := upstream.Counts{TotalRequests: 1, FailedRequests: 1, ConnectFailures: 1}
		if got := h.p.Stats().Clusters[0].Endpoints[0].Counts; got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}
