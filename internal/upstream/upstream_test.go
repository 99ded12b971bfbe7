package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// pair is an endpoint whose server ends the test holds.
func pair(t *testing.T, limits Limits) (e *Endpoint, accept func() net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	addr := netip.MustParseAddrPort(ln.Addr().String())
	var d net.Dialer
	e = NewEndpoint(addr, func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr.String()) }, limits)
	t.Cleanup(e.Close)
	return e, func() net.Conn {
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
}

func dialOne(t *testing.T, e *Endpoint) *Conn {
	t.Helper()
	c, err := e.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestPoolIsLastInFirstOut(t *testing.T) {
	e, _ := pair(t, Limits{MaxIdle: 2, IdleTimeout: 1000})
	a, b, c := dialOne(t, e), dialOne(t, e), dialOne(t, e)
	e.Put(a, 1)
	e.Put(b, 2)
	e.Put(c, 3) // one too many: closed
	if got := e.Counts(); got.ActiveConnections != 2 || got.IdleConnections != 2 || got.TotalConnection != 3 {
		t.Errorf("counts are %+v", got)
	}
	if got := e.Get(3, false); got != b || !got.Reused() {
		t.Error("the last one put back is not the first one taken")
	}
	if e.Get(3, false) != a || e.Get(3, false) != nil {
		t.Error("the pool does not hold exactly what was put into it")
	}
}

// TestStaleConnectionsAreNotUsed: what ended, or spoke, while it was idle is
// not handed out.
func TestStaleConnectionsAreNotUsed(t *testing.T) {
	e, accept := pair(t, Limits{MaxIdle: 10, IdleTimeout: 1 << 40})
	ended, spoke := dialOne(t, e), dialOne(t, e)
	accept().Close()
	io.WriteString(accept(), "HTTP/1.1 408 Request Timeout\r\n\r\n")
	for ended.Probe() == Quiet || spoke.Probe() == Quiet { // the kernel delivers it soon
	}
	if got := spoke.Probe(); got != Readable {
		t.Errorf("probe finds %d, want %d", got, Readable)
	}
	e.Put(ended, 0)
	e.Put(spoke, 0)
	if c := e.Get(int64(staleCheckAfter), false); c != nil {
		t.Error("a stale connection was handed out")
	}
	ended = dialOne(t, e)
	accept().Close()
	for ended.Probe() == Quiet {
	}
	e.Put(ended, 0)
	if c := e.Get(0, true); c != nil {
		t.Error("a stale connection was handed out for a request that cannot be repeated")
	}
	if got := e.Counts().ActiveConnections; got != 0 {
		t.Errorf("%d connections are left", got)
	}
}

func TestReapAndClose(t *testing.T) {
	e, _ := pair(t, Limits{MaxIdle: 10, IdleTimeout: 100})
	old, young, busy := dialOne(t, e), dialOne(t, e), dialOne(t, e)
	e.Put(old, 0)
	e.Put(young, 60)
	if left := e.Reap(100); left != 2 {
		t.Errorf("%d connections are left, want 2", left)
	}
	e.Close()
	if got := e.Counts().ActiveConnections; got != 1 {
		t.Errorf("%d connections are left after Close, want the busy one", got)
	}
	e.Put(busy, 100)
	if got := e.Counts().ActiveConnections; got != 0 {
		t.Errorf("%d connections are left", got)
	}
	// Who chose the endpoint before it left is served, on a connection that is
	// not kept.
	late := dialOne(t, e)
	e.Put(late, 100)
	if got := e.Counts(); got.ActiveConnections != 0 || got.IdleConnections != 0 {
		t.Errorf("a connection of a closed endpoint is kept: %+v", got)
	}
}

// One Reap looks at a bounded number of connections, and some later one has
// looked at each.
func TestReapLooksAtAllInTurn(t *testing.T) {
	const all = 3*reapProbes + 1
	e, accept := pair(t, Limits{MaxIdle: all, IdleTimeout: 1 << 40})
	var conns []*Conn
	for range all {
		conns = append(conns, dialOne(t, e))
		accept().Close()
	}
	for _, c := range conns {
		for c.Probe() == Quiet { // the kernel delivers it soon
		}
		e.Put(c, 0)
	}
	var left []int
	for range 4 {
		left = append(left, e.Reap(1))
	}
	if want := []int{all - reapProbes, all - 2*reapProbes, 1, 0}; !slices.Equal(left, want) {
		t.Errorf("left %v, want %v", left, want)
	}
	live := dialOne(t, e)
	accept()
	e.Put(live, 0)
	if got := e.Reap(1); got != 1 {
		t.Errorf("%d connections are left, want the one that is open", got)
	}
}

func TestSourcesForgetWhatIsUnused(t *testing.T) {
	var s Sources
	e, _ := pair(t, Limits{MaxIdle: 1, IdleTimeout: 100})
	key := SourceKey{Target: e.Addr()}
	create := func() *Endpoint { return e }
	if s.Acquire(key, create) != e {
		t.Fatal("another endpoint")
	}
	s.Reap(0)
	if len(s.Endpoints()) != 1 {
		t.Error("an endpoint in use is forgotten")
	}
	e.Put(dialOne(t, e), 0)
	s.Release(key)
	s.Reap(99)
	if len(s.Endpoints()) != 1 {
		t.Error("an endpoint with a connection is forgotten")
	}
	s.Reap(100)
	if len(s.Endpoints()) != 0 {
		t.Error("an unused endpoint is kept")
	}
}

func TestExchange(t *testing.T) {
	e, accept := pair(t, Limits{MaxIdle: 1})
	c := dialOne(t, e)
	server := accept()
	go func() {
		buf := make([]byte, 4)
		io.ReadFull(server, buf)
		io.WriteString(server, "pong")
	}()
	var b Buffer
	written, n, err := c.Exchange([]byte("ping"), &b)
	if written != 4 || n != 4 || err != nil || string(b.Bytes()) != "pong" {
		t.Errorf("exchange: %d %d %v %q", written, n, err, b.Bytes())
	}
	b.Release()
	server.Close()
	if _, err := c.Read(&b, nil); !errors.Is(err, io.EOF) {
		t.Errorf("read at the end: %v", err)
	}
}

// TestAnswer: what is written goes out before the wait for the next bytes, and what
// could not be written is told.
func TestAnswer(t *testing.T) {
	far := func(t *testing.T, near *Stream, socket bool) net.Conn {
		t.Helper()
		if !socket {
			a, b := net.Pipe()
			t.Cleanup(func() { a.Close(); b.Close() })
			near.Init(a)
			return b
		}
		e, accept := pair(t, Limits{MaxIdle: 1, IdleTimeout: 1 << 40})
		near.Init(dialOne(t, e).NetConn())
		return accept()
	}
	for name, socket := range map[string]bool{"socket": true, "no socket": false} {
		t.Run(name, func(t *testing.T) {
			var s Stream
			peer := far(t, &s, socket)
			go func() {
				var first [1]byte
				if _, err := peer.Read(first[:]); err != nil || first[0] != 'a' {
					t.Errorf("the peer reads %q, %v", first[:], err)
				}
				io.WriteString(peer, "next")
			}()
			var b Buffer
			sent := 0
			written, n, err := s.Answer([]byte("a"), &b, func() { sent++ }, nil)
			if written != 1 || n == 0 || err != nil || sent != 1 || s.Written() != 1 {
				t.Errorf("Answer = %d, %d, %v; sent called %d times, %d bytes written in all", written, n, err, sent, s.Written())
			}
		})
	}
	never := func() { t.Error("sent was called") }
	t.Run("interrupted", func(t *testing.T) {
		var s Stream
		far(t, &s, true)
		s.Interrupt()
		var b Buffer
		written, n, err := s.Answer([]byte("a"), &b, never, nil)
		if written != 0 || n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Answer = %d, %d, %v", written, n, err)
		}
		if n, err := s.Write([]byte("a")); n != 1 || err != nil {
			t.Errorf("Write after it = %d, %v", n, err)
		}
	})
	t.Run("nobody reads", func(t *testing.T) {
		var s Stream
		far(t, &s, true)
		out := make([]byte, 64<<20)
		var b Buffer
		written, n, err := s.Answer(out, &b, never, nil)
		if written == 0 || written == len(out) || n != 0 || err != nil || s.Written() != uint64(written) {
			t.Errorf("Answer = %d, %d, %v; %d bytes written in all", written, n, err, s.Written())
		}
	})
	t.Run("closed", func(t *testing.T) {
		var s Stream
		far(t, &s, true)
		s.Close()
		var b Buffer
		if written, n, err := s.Answer([]byte("a"), &b, never, nil); written != 0 || n != 0 || !errors.Is(err, net.ErrClosed) {
			t.Errorf("Answer = %d, %d, %v", written, n, err)
		}
	})
}

func TestPick(t *testing.T) {
	var eps []mesh.Endpoint
	for _, a := range []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"} {
		eps = append(eps, mesh.Endpoint{Address: netip.MustParseAddrPort(a)})
	}
	dial := func(netip.AddrPort) DialFunc { return nil }
	empty := NewCluster(mesh.Cluster{}, nil, nil, Limits{}, dial)
	if got := empty.Pick(0); got != -1 {
		t.Errorf("empty: %d", got)
	}
	two := NewCluster(mesh.Cluster{}, eps[:2], empty, Limits{}, dial)
	two.Members[0].Enter()
	for rnd := range uint64(100) {
		if got := two.Pick(rnd << 32); got != 1 {
			t.Fatalf("with load 1 and 0 member %d is picked", got)
		}
	}
	three := NewCluster(mesh.Cluster{}, eps, two, Limits{}, dial)
	if three.Members[0].Endpoint != two.Members[0].Endpoint || three.Members[0].Active() != 1 {
		t.Error("an endpoint did not survive a change of the cluster")
	}
	seen := map[int]int{}
	for i := range uint64(3) {
		for j := range uint64(2) {
			seen[three.Pick(i<<32|j)]++
		}
	}
	if seen[0] != 0 || seen[1] != 3 || seen[2] != 3 {
		t.Errorf("picked %v", seen)
	}
}

func TestFrame(t *testing.T) {
	var b Buffer
	defer b.Release()
	b.Take()
	b.Wrote(copy(b.Free(), "xxhello"))
	if got := string(b.Frame(2, 7, []byte("0123456789abcdef"), "<tail>!!")); got != "0123456789abcdefhello<tail>!!" {
		t.Errorf("framed as %q", got)
	}
}
