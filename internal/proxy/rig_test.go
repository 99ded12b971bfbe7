package proxy

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

const testNet = 77

// hop is a running proxy in front of one origin: outbound through a route and
// a cluster, or inbound through a bound listener.
type hop struct {
	p    *Proxy
	rec  *telemetry.Recorder
	addr string // where clients connect
}

// loopListener makes an ordinary listener give out connections as interception
// does, all of them to one destination.
type loopListener struct {
	net.Listener
	dst netip.AddrPort
}

func (l loopListener) Accept() (Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return Conn{}, err
	}
	return Conn{Conn: c, OrigDst: l.dst, Source: netip.MustParseAddrPort(c.RemoteAddr().String())}, nil
}

func workload(name string, i mesh.Index) mesh.Workload {
	return mesh.Workload{
		Name: name + "-0", Namespace: "default", Owner: name, Labels: map[string]string{"app": name},
		IP: mesh.IP(testNet, i), CaseIP: mesh.CaseIP4(i), Ready: true,
	}
}

// webConfig routes every host named web to the endpoints.
func webConfig(protocol mesh.Protocol, timeout time.Duration, endpoints ...string) *mesh.NodeConfig {
	ref := mesh.ServiceRef{Host: "web.default.svc.cluster.local", Name: "web", Namespace: "default"}
	const cluster = "outbound|80||web.default.svc.cluster.local"
	cfg := &mesh.NodeConfig{
		Listeners: []mesh.Listener{{
			Name: "0.0.0.0_80", Direction: mesh.Outbound, Address: netip.MustParseAddrPort("0.0.0.0:80"),
			Protocol: protocol, RouteConfig: "80",
		}},
		Routes: []mesh.RouteConfig{{Name: "80", VirtualHosts: []mesh.VirtualHost{{
			Name: "web", Domains: []string{"web", "web.default.svc.cluster.local"},
			Routes: []mesh.Route{{Name: "default", Prefix: "/", Timeout: timeout, Clusters: []mesh.WeightedCluster{{Cluster: cluster, Weight: 1}}}},
		}}}},
		Clusters:  []mesh.Cluster{{Name: cluster, Type: mesh.ClusterEDS, Service: ref, Port: 80, ConnectTimeout: patience}},
		Workloads: []mesh.Workload{workload("client", 2), workload("web", 3)},
	}
	ce := mesh.ClusterEndpoints{Cluster: cluster}
	for _, e := range endpoints {
		ce.Endpoints = append(ce.Endpoints, mesh.Endpoint{Address: netip.MustParseAddrPort(e), Workload: "default/web-0"})
	}
	cfg.Endpoints = []mesh.ClusterEndpoints{ce}
	return cfg
}

// startHop runs a proxy with cfg, and an outbound listener for connections to
// 240.240.0.1:80.
func startHop(tb testing.TB, cfg *mesh.NodeConfig, change func(*Options)) *hop {
	tb.Helper()
	return startHopTo(tb, cfg, netip.MustParseAddrPort("240.240.0.1:80"), change)
}

// startHopTo is startHop for connections to dst.
func startHopTo(tb testing.TB, cfg *mesh.NodeConfig, dst netip.AddrPort, change func(*Options)) *hop {
	tb.Helper()
	rec, err := telemetry.New(telemetry.Options{Self: cfg.Workloads[0], AccessLog: telemetry.AccessLogOptions{Size: 64}})
	if err != nil {
		tb.Fatal(err)
	}
	o := Options{Net: testNet, Recorder: rec, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	p, err := New(o)
	if err != nil {
		tb.Fatal(err)
	}
	if err := p.Apply(cfg); err != nil {
		tb.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { p.Run(ctx) })
	wg.Go(func() { rec.Run(ctx) })
	wg.Go(func() {
		p.ServeOutbound(ctx, loopListener{ln, dst})
	})
	tb.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return &hop{p: p, rec: rec, addr: ln.Addr().String()}
}

// dial opens a client connection that is closed at the end of the test.
func (h *hop) dial(tb testing.TB) *net.TCPConn {
	tb.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// serveRaw accepts connections on loopback and hands each to handle in a
// goroutine of its own. All have ended when the test has.
func serveRaw(tb testing.TB, handle func(*net.TCPConn)) string {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				handle(c.(*net.TCPConn))
			})
		}
	})
	tb.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

// inboundConfig is one bound listener in front of the program on origin's port.
func inboundConfig(tb testing.TB, origin string) (*mesh.NodeConfig, netip.AddrPort) {
	tb.Helper()
	bind := closedPort(tb)
	port := netip.MustParseAddrPort(origin).Port()
	return &mesh.NodeConfig{
		Listeners: []mesh.Listener{{
			Name: "inbound", Direction: mesh.Inbound, Address: bind, Bind: true, Protocol: mesh.ProtocolHTTP, Cluster: "inbound|8080||",
		}},
		Clusters:  []mesh.Cluster{{Name: "inbound|8080||", Type: mesh.ClusterLocal, Port: port, ConnectTimeout: patience}},
		Workloads: []mesh.Workload{workload("web", 3), workload("client", 2)},
	}, bind
}

func startInbound(tb testing.TB, origin string, change func(*Options)) *hop {
	tb.Helper()
	cfg, bind := inboundConfig(tb, origin)
	h := startHop(tb, cfg, change)
	h.addr = bind.String()
	return h
}
