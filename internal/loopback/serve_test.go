package loopback_test

import (
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vitrine-mesh/vitrine/internal/loopback"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what takes milliseconds.
const patience = time.Minute

// serving runs Serve until the test ends or stop is called, which returns what
// Serve returned.
func serving(t *testing.T, h http.Handler, end loopback.End) (url string, stop func() error) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- loopback.Serve(ctx, ln, h, end) }()
	t.Cleanup(cancel)
	return "http://" + ln.Addr().String(), func() error {
		cancel()
		select {
		case err := <-served:
			return err
		case <-time.NewTimer(patience).C:
			t.Fatal("Serve does not end")
			return nil
		}
	}
}

func get(t *testing.T, url string, header http.Header) (status int, body string, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), err
}

// TestServeEnds: a request that is under way when the end comes gets its answer;
// whether it is told of the end is the caller's choice.
func TestServeEnds(t *testing.T) {
	for end, want := range map[loopback.End]string{loopback.Finish: "went on", loopback.Cancel: "was told"} {
		arrived, release := make(chan struct{}), make(chan struct{})
		url, stop := serving(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(arrived)
			select {
			case <-r.Context().Done():
				_, _ = io.WriteString(w, "was told")
			case <-release:
				_, _ = io.WriteString(w, "went on")
			}
		}), end)
		answer := make(chan string, 1)
		go func() {
			status, body, err := get(t, url, nil)
			if err != nil || status != http.StatusOK {
				body = http.StatusText(status)
			}
			answer <- body
		}()
		<-arrived
		stopped := make(chan error, 1)
		go func() { stopped <- stop() }()
		if end == loopback.Finish {
			// The listener is closed before requests are waited for.
			for {
				if _, _, err := get(t, url, nil); err != nil {
					break
				}
			}
			close(release)
		}
		if got := <-answer; got != want {
			t.Errorf("end %d: the request %q, want %q", end, got, want)
		}
		if err := <-stopped; err != nil {
			t.Errorf("end %d: Serve: %v", end, err)
		}
	}
}

// TestServeSaysWhatFailed: the end of the listener is an error unless ctx asked
// for it.
func TestServeSaysWhatFailed(t *testing.T) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	err = loopback.Serve(t.Context(), ln, http.NotFoundHandler(), loopback.Finish)
	if err == nil || !strings.HasPrefix(err.Error(), "serve "+ln.Addr().String()+": ") {
		t.Errorf("Serve on a closed listener: %v", err)
	}
}

// TestServeBoundsHeaders: 431 beyond the limit.
func TestServeBoundsHeaders(t *testing.T) {
	url, stop := serving(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), loopback.Cancel)
	for size, want := range map[int]int{32 << 10: http.StatusOK, 128 << 10: http.StatusRequestHeaderFieldsTooLarge} {
		status, _, err := get(t, url, http.Header{"X-Long": {strings.Repeat("x", size)}})
		if err != nil || status != want {
			t.Errorf("header of %d bytes: status %d, %v; want %d", size, status, err, want)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
