package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// hammer makes one request after the other to addr, each on a connection of its
// own, until stop is closed. It adds those that are answered to n and returns the
// longest. If resets is not nil, it counts connections that were reset, which
// otherwise are errors.
func hammer(addr string, stop <-chan struct{}, n, resets *atomic.Int64) (longest time.Duration, err error) {
	for {
		select {
		case <-stop:
			return longest, nil
		default:
		}
		begin := time.Now()
		switch err := oneRequest(addr); {
		case err == nil:
			n.Add(1)
		case resets != nil && errors.Is(err, syscall.ECONNRESET):
			resets.Add(1)
		default:
			return longest, fmt.Errorf("after %d requests: %w", n.Load(), err)
		}
		longest = max(longest, time.Since(begin))
	}
}

func oneRequest(addr string) error {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK\r\n") {
		return fmt.Errorf("answer %.60q", answer)
	}
	return nil
}

// Three replicas serve one published address. While clients open a new
// connection for each request, readiness goes from replica to replica and in
// the end two are drained: no request fails. Where the kernel lets only root drop
// handshakes, a listener may take one or two with it.
func TestPublishedAddressLosesNothing(t *testing.T) {
	const flips, clients = 150, 8
	cfg, bind := inboundConfig(t, serveRaw(t, answerOK))
	cfg.Listeners[0].Bind, cfg.Listeners[0].Publish = false, true
	var replicas []*hop
	for range 3 {
		h := startHop(t, cfg, nil)
		h.p.SetReady(true)
		replicas = append(replicas, h)
	}
	var resets atomic.Int64
	lossy := &resets
	ln, err := listen(bindKey{addr: netip.MustParseAddrPort("127.0.0.1:0"), publish: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := (&bound{ln: ln}).dropHandshakes(); err == nil {
		lossy = nil
	} else if os.Getuid() == 0 || !errors.Is(err, syscall.EPERM) {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var total, longest atomic.Int64
	for range clients {
		wg.Go(func() {
			l, err := hammer(bind.String(), stop, &total, lossy)
			if err != nil {
				t.Error(err)
			}
			for old := longest.Load(); int64(l) > old && !longest.CompareAndSwap(old, int64(l)); old = longest.Load() {
			}
		})
	}
	for i := range flips {
		p := replicas[i%3].p
		p.SetReady(false)
		pause(t.Context(), 5*time.Millisecond)
		p.SetReady(true)
		pause(t.Context(), 10*time.Millisecond)
	}
	for _, h := range replicas[:2] {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := h.p.Drain(ctx); err != nil {
			t.Error(err)
		}
		cancel()
	}
	close(stop)
	wg.Wait()
	if total.Load() < clients {
		t.Errorf("only %d requests were made", total.Load())
	}
	if resets.Load() > flips/3 {
		t.Errorf("%d connections were reset in %d flips", resets.Load(), flips)
	}
	t.Logf("%d requests during %d flips, %d resets, the longest took %v", total.Load(), flips, resets.Load(), time.Duration(longest.Load()))
}

// The last replica that becomes unready refuses connections, at once and for
// good, and the address can be bound again.
func TestUnreadyAddressRefuses(t *testing.T) {
	cfg, bind := inboundConfig(t, serveRaw(t, answerOK))
	cfg.Listeners[0].Bind, cfg.Listeners[0].Publish = false, true
	h := startHop(t, cfg, nil)
	for range 5 {
		h.p.SetReady(true)
		if err := oneRequest(bind.String()); err != nil {
			t.Fatal(err)
		}
		h.p.SetReady(false)
		until(t, "connections are refused", func() bool {
			var d net.Dialer
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			c, err := d.DialContext(ctx, "tcp", bind.String())
			if err == nil {
				c.Close()
			}
			return err != nil && !errors.Is(err, context.DeadlineExceeded)
		})
	}
}

// A listener that is given up waits as long as packets wait that may belong to a
// handshake, and not for ever.
func TestHandshakesAreAwaited(t *testing.T) {
	looks := 0
	awaitHandshakes(t.Context(), patience, func() bool { looks++; return looks < 5 })
	if looks != 5 {
		t.Errorf("looked %d times, want 5", looks)
	}
	awaitHandshakes(t.Context(), time.Millisecond, func() bool { return true })

	const none = "00000007 00000000 00000002 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 "
	const older = "0dfb4137 00000000 00000013\n"
	for table, want := range map[string]bool{
		none + "00000000 00000000 00000000 00000000\n" + none + "00000000 00000001 00000000 00000000\n": false,
		none + "00000000 00000000 00000000 00000000\n" + none + "00000010 00000001 00000010 00000000\n": true,
		older: false,
	} {
		if got := backlogged(table); got != want {
			t.Errorf("packets wait: %t, want %t, in\n%s", got, want, table)
		}
	}
}

// answerOK answers every request on c.
func answerOK(c *net.TCPConn) {
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		for range strings.Count(string(buf[:n]), "\r\n\r\n") {
			if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); err != nil {
				return
			}
		}
	}
}
