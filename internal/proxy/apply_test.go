package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

// TestApplyUnderLoad changes the configuration hundreds of times while clients
// make requests, on kept and on new connections: endpoints come, go and come
// back, listeners and routes change. No request fails.
func TestApplyUnderLoad(t *testing.T) {
	const changes = 300
	a, b := serveRaw(t, answerOK), serveRaw(t, answerOK)
	configs := []*mesh.NodeConfig{
		webConfig(mesh.ProtocolHTTP, 0, a),
		webConfig(mesh.ProtocolHTTP, 0, a, b),
		webConfig(mesh.ProtocolAuto, patience, b),
		webConfig(mesh.ProtocolHTTP, patience, b, a),
	}
	exact := configs[3].Listeners[0]
	exact.Name, exact.Address = "exact", netip.MustParseAddrPort("240.240.0.1:80")
	configs[3].Listeners = append(configs[3].Listeners, exact)
	h := startHop(t, configs[0], nil)

	stop := make(chan struct{})
	var wg sync.WaitGroup
	var kept, fresh atomic.Int64
	for range 4 {
		wg.Go(func() {
			if _, err := hammer(h.addr, stop, &fresh, nil); err != nil {
				t.Errorf("new connections: %v", err)
			}
		})
		wg.Go(func() {
			tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "tcp", h.addr)
			}}
			defer tr.CloseIdleConnections()
			client := http.Client{Transport: tr, Timeout: patience}
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := client.Get("http://web/")
				if err != nil {
					t.Errorf("kept connection: %v", err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK || string(body) != "ok" {
					t.Errorf("kept connection: %s %q %v", resp.Status, body, err)
					return
				}
				kept.Add(1)
			}
		})
	}
	applied := 0
	for end := time.Now().Add(patience); applied < changes || kept.Load() < changes/2 || fresh.Load() < changes/10; applied++ {
		if t.Failed() || time.Now().After(end) {
			t.Errorf("only %d and %d requests were made", kept.Load(), fresh.Load())
			break
		}
		if err := h.p.Apply(configs[applied%len(configs)]); err != nil {
			t.Error(err)
		}
		pause(t.Context(), time.Millisecond)
	}
	close(stop)
	wg.Wait()
	t.Logf("%d requests on kept, %d on new connections during %d changes", kept.Load(), fresh.Load(), applied)
}

// TestStalledBodies: a message that makes no progress for BodyIdleTimeout is
// given up in either direction, one that makes some is not.
func TestStalledBodies(t *testing.T) {
	const limit = 300 * time.Millisecond
	idle := func(o *Options) { o.BodyIdleTimeout = limit }
	t.Run("response", func(t *testing.T) {
		h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, serveRaw(t, func(c *net.TCPConn) {
			c.Read(make([]byte, 1024))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
			io.Copy(io.Discard, c) // until the proxy gives up
		})), idle)
		begin := time.Now()
		c := h.dial(t)
		mustWrite(t, c, "GET / HTTP/1.1\r\nHost: web\r\n\r\n")
		answer, _ := io.ReadAll(c) // may end by a reset: the body is cut short
		if took := time.Since(begin); took < limit {
			t.Errorf("given up after %v", took)
		}
		if !strings.HasSuffix(string(answer), "half") {
			t.Errorf("answer %q", answer)
		}
		if e := h.lastEntry(t, 1); e.Code != 200 || e.Flags == 0 {
			t.Errorf("recorded as code %d, flags %v, %q", e.Code, e.Flags, e.Detail)
		}
	})
	t.Run("request", func(t *testing.T) {
		ended := make(chan struct{})
		h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, serveRaw(t, func(c *net.TCPConn) {
			defer close(ended)
			io.Copy(io.Discard, c)
		})), idle)
		c := h.dial(t)
		mustWrite(t, c, "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 10\r\n\r\nhalf")
		io.ReadAll(c)
		<-ended // the origin is not left waiting either
		if e := h.lastEntry(t, 1); e.Code != 408 || e.Flags != telemetry.FlagSI {
			t.Errorf("recorded as code %d, flags %v, %q", e.Code, e.Flags, e.Detail)
		}
	})
	t.Run("slow but moving", func(t *testing.T) {
		const parts = 20
		// It does not move when a busy machine stalls the test: then the try proves nothing.
		for limit := 5 * limit; ; limit *= 2 {
			stalled := make(chan time.Duration, 1)
			h := startHop(t, webConfig(mesh.ProtocolHTTP, 0, serveRaw(t, func(c *net.TCPConn) {
				c.Read(make([]byte, 1024))
				pieces := append([]string{fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", parts)}, slices.Repeat([]string{"x"}, parts)...)
				longest, _ := trickle(t, c, limit*4/3, pieces...) // fails if it was given up
				stalled <- longest
				io.Copy(io.Discard, c)
			})), func(o *Options) { o.BodyIdleTimeout = limit })
			c := h.dial(t)
			mustWrite(t, c, "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
			answer, err := io.ReadAll(c)
			if err == nil && strings.HasSuffix(string(answer), strings.Repeat("x", parts)) {
				return
			}
			if longest := await(t, stalled); longest < limit/2 || limit > 10*time.Second {
				t.Fatalf("answer %q, %v, at most %v between two parts", answer, err, longest)
			}
		}
	})
}

// TestOutboundIPv6 reaches services and passed-through destinations by IPv6.
func TestOutboundIPv6(t *testing.T) {
	ln, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			answerOK(c.(*net.TCPConn))
			c.Close()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	origin := netip.MustParseAddrPort(ln.Addr().String())
	vip := netip.MustParseAddrPort("[2001:2::1]:80")
	for name, tc := range map[string]struct {
		dst     netip.AddrPort
		service string
	}{
		"virtual IP":   {vip, "web"},
		"pass through": {origin, "PassthroughCluster"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := webConfig(mesh.ProtocolHTTP, 0, origin.String())
			cfg.Listeners[0].Address = vip
			cfg.Listeners = append(cfg.Listeners, mesh.Listener{
				Name: catchAll, Direction: mesh.Outbound, Protocol: mesh.ProtocolAuto, Cluster: mesh.PassthroughCluster,
			})
			cfg.Clusters = append(cfg.Clusters, mesh.Cluster{Name: mesh.PassthroughCluster, Type: mesh.ClusterOriginalDst})
			h := startHop(t, cfg, nil)
			entry, err := net.Listen("tcp", "[::1]:0")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := h.p.ServeOutbound(ctx, loopListener{entry, tc.dst}); err != nil {
					t.Error(err)
				}
			})
			defer wg.Wait()
			defer cancel()
			if err := oneRequest(entry.Addr().String()); err != nil {
				t.Fatal(err)
			}
			h.lastEntry(t, 1)
			var b strings.Builder
			if err := h.rec.WriteText(&b); err != nil {
				t.Fatal(err)
			}
			if want := `destination_service_name="` + tc.service + `"`; !strings.Contains(b.String(), want) {
				t.Errorf("metrics lack %s", want)
			}
		})
	}
}
