// Command hop is one outbound hop of Vitrine's data plane alone: detection,
// routing by host, balancing, pooled connections and all telemetry, from a
// NodeConfig as a control plane would send it. Only interception is left out,
// which its peers do not have either. On SIGUSR1 it prints how many objects the
// process has allocated.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/proxy"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:29080", "address to listen on")
	origin := flag.String("origin", "127.0.0.1:29079", "address of the origin")
	cpuprofile := flag.String("cpuprofile", "", "write a CPU profile of the whole run to this file")
	flag.Parse()
	debug.SetGCPercent(50) // as the sidecar sets it
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := profiled(*cpuprofile, func() error { return run(ctx, *listen, *origin) })
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "hop:", err)
		os.Exit(1)
	}
}

// profiled calls run, and writes a CPU profile of that to path unless it is "".
func profiled(path string, run func() error) error {
	if path == "" {
		return run()
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return errors.Join(fmt.Errorf("profile: %w", err), f.Close())
	}
	err = run()
	pprof.StopCPUProfile()
	return errors.Join(err, f.Close())
}

// outbound hands each accepted connection over as if it had been redirected on
// its way to a service's virtual address.
type outbound struct {
	net.Listener
	dst netip.AddrPort
}

func (l outbound) Accept() (proxy.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return proxy.Conn{}, err
	}
	source, _ := netip.ParseAddrPort(c.RemoteAddr().String())
	return proxy.Conn{Conn: c, OrigDst: l.dst, Source: source}, nil
}

func run(ctx context.Context, listen, origin string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	addr, err := netip.ParseAddrPort(origin)
	if err != nil {
		return fmt.Errorf("origin address: %w", err)
	}
	client := mesh.Workload{
		Name: "client-1", Namespace: mesh.DefaultNamespace, Owner: "client", Cluster: mesh.DefaultCluster,
		Labels: map[string]string{"app": "client", "version": "v1"},
	}
	recorder, err := telemetry.New(telemetry.Options{Self: client, Log: log})
	if err != nil {
		return err
	}
	p, err := proxy.New(proxy.Options{Self: client, Net: mesh.MeshNetFirst, Recorder: recorder, Log: log})
	if err != nil {
		return err
	}
	if err := p.Apply(config(addr)); err != nil {
		return err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return recorder.Run(ctx) })
	g.Go(func() error { return p.Run(ctx) })
	g.Go(func() error {
		return p.ServeOutbound(ctx, outbound{ln, netip.AddrPortFrom(mesh.ServiceVIP4(1), 80)})
	})
	g.Go(func() error { return tellAllocations(ctx) })
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// config routes a hundred services on port 80; requests are for one of them.
func config(origin netip.AddrPort) *mesh.NodeConfig {
	cfg := &mesh.NodeConfig{
		Listeners: []mesh.Listener{{
			Name: "0.0.0.0_80", Direction: mesh.Outbound, Protocol: mesh.ProtocolHTTP, RouteConfig: "80",
			Address: netip.AddrPortFrom(netip.IPv4Unspecified(), 80),
		}},
		Workloads: []mesh.Workload{{
			Name: "origin-1", Namespace: mesh.DefaultNamespace, Owner: "origin", Cluster: mesh.DefaultCluster,
			Labels: map[string]string{"app": "origin", "version": "v1"}, IP: mesh.IP(mesh.MeshNetFirst, 2), Ready: true,
		}},
	}
	routes := mesh.RouteConfig{Name: "80"}
	for i := range 100 {
		name := fmt.Sprintf("service-%02d", i)
		domains := []string{name, name + ".default.svc.cluster.local"}
		endpoint := mesh.Endpoint{Address: origin, Workload: mesh.DefaultNamespace + "/origin-1"}
		if i == 50 {
			domains = append(domains, "origin.test", "127.0.0.1", "127.0.0.1:29080")
		}
		ref := mesh.ServiceRef{Host: name + ".default.svc.cluster.local", Name: name, Namespace: mesh.DefaultNamespace}
		cluster := "outbound|80||" + ref.Host
		cfg.Clusters = append(cfg.Clusters, mesh.Cluster{Name: cluster, Type: mesh.ClusterEDS, Service: ref, Port: 80, ConnectTimeout: 10 * time.Second})
		cfg.Endpoints = append(cfg.Endpoints, mesh.ClusterEndpoints{Cluster: cluster, Endpoints: []mesh.Endpoint{endpoint}})
		routes.VirtualHosts = append(routes.VirtualHosts, mesh.VirtualHost{
			Name: ref.Host + ":80", Domains: domains,
			Routes: []mesh.Route{{Name: "default", Prefix: "/", Clusters: []mesh.WeightedCluster{{Cluster: cluster, Weight: 1}}}},
		})
	}
	cfg.Routes = []mesh.RouteConfig{routes}
	return cfg
}

func tellAllocations(ctx context.Context) error {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	defer signal.Stop(asked)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-asked:
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats)
			fmt.Fprintf(os.Stderr, "mallocs %d\n", stats.Mallocs)
		}
	}
}
