package admin

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// postAs posts from a socket that belongs to uid, as far as we may make one; it
// returns the status and whether the socket is that user's.
func postAs(t *testing.T, uid int, network, url string) (code int, theirs bool) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		_, _ = unix.SetfsuidRetUid(uid)
		now, _ := unix.SetfsuidRetUid(-1)
		theirs = now == uid
		transport := &http.Transport{DisableKeepAlives: true}
		defer transport.CloseIdleConnections()
		// The socket is made by the thread that asks for it.
		conn, err := (&net.Dialer{}).DialContext(t.Context(), network, url)
		if err != nil {
			t.Error(err)
			return
		}
		transport.DialContext = func(context.Context, string, string) (net.Conn, error) { return conn, nil }
		client := http.Client{Transport: transport}
		res, err := client.Post("http://localhost/quitquitquit", "", nil)
		if err != nil {
			t.Error(err)
			return
		}
		res.Body.Close()
		code = res.StatusCode
	}()
	<-done
	return code, theirs
}

// Only the proxy's own user and root may change anything, whatever kind of socket
// they use; everybody may look.
func TestOnlyOwnUserChanges(t *testing.T) {
	quits := 0
	s := newServer(t, func(o *Options) { o.Quit = func() { quits++ } })
	srv := httptest.NewServer(s)
	defer srv.Close()
	addr := srv.Listener.Addr().(*net.TCPAddr).AddrPort()
	mapped := netip.AddrPortFrom(netip.AddrFrom16(addr.Addr().As16()), addr.Port()).String()
	for _, uid := range []int{os.Geteuid(), 1001} {
		for _, at := range []string{addr.String(), mapped} {
			code, theirs := postAs(t, uid, "tcp", at)
			if os.Geteuid() == 0 && !theirs {
				t.Errorf("no socket of user %d could be made", uid)
			}
			want := http.StatusOK
			if theirs && uid != os.Geteuid() {
				want = http.StatusForbidden
			}
			if code != want {
				t.Errorf("user %d to %s: status %d, want %d", uid, at, code, want)
			}
		}
	}
	if os.Geteuid() == 0 && quits != 2 {
		t.Errorf("asked to end %d times, want 2", quits)
	}
}

func TestOwnerOf(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 05004D7F:3A98 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 22 1 0 100 0 0 10 0
   1: 0100007F:0400 05004D7F:3A98 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0
   2: 0100007F:0401 05004D7F:3A98 01 00000000:00000000 00:00000000 00000000  1001        0 23 1 0 20 4 30 10 -1
   3: 0000000000000000FFFF00000100007F:0402 0000000000000000FFFF000005004D7F:3A98 01 00000000:00000000 00:00000000 00000000  1002        0 24 1 0
   4: 0100007F:0403
`
	server := netip.MustParseAddrPort("127.77.0.5:15000")
	for client, want := range map[string]int{
		"127.0.0.1:1024": -1, // TIME_WAIT: nobody's
		"127.0.0.1:1025": 1001, "127.0.0.1:1026": 1002, "127.0.0.1:1027": -1, "127.0.0.2:1025": -1,
	} {
		uid, ok := ownerOf(table, netip.MustParseAddrPort(client), server)
		if !ok {
			uid = -1
		}
		if uid != want {
			t.Errorf("%s belongs to %d, want %d", client, uid, want)
		}
	}
}
