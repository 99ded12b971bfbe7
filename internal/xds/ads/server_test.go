package ads_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/xds"
	"github.com/vitrine-mesh/vitrine/internal/xds/ads"
)

// patience bounds what takes milliseconds on an idle machine: it only says when a
// test gives up.
const patience = 2 * time.Minute

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// byValue compares addresses as such.
var byValue = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

// plane is a control plane whose configuration the test sets.
type plane struct {
	*ads.Server
	config atomic.Pointer[mesh.NodeConfig]
	log    lines
}

// lines are what the control plane logs.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), s)
}

// set publishes cfg; nil is none.
func (p *plane) set(cfg *mesh.NodeConfig) {
	p.config.Store(cfg)
	p.Notify()
}

func newPlane(t *testing.T, cfg *mesh.NodeConfig, stuckAfter time.Duration) *plane {
	t.Helper()
	p := &plane{}
	p.config.Store(cfg)
	var err error
	p.Server, err = ads.NewServer(ads.ServerOptions{
		Config: func(string) (*mesh.NodeConfig, error) {
			if cfg := p.config.Load(); cfg != nil {
				return cfg, nil
			}
			return nil, errors.New("no configuration yet")
		},
		StuckAfter: stuckAfter,
		Log:        slog.New(slog.NewTextHandler(io.MultiWriter(&p.log, t.Output()), &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *plane) serve(t *testing.T, socket string) (stop func()) {
	t.Helper()
	return serve(t, p.Server, socket)
}

// serve runs a server on the socket until the returned function is called.
func serve(t *testing.T, s *ads.Server, socket string) (stop func()) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := s.Serve(ctx, ln); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); done.Wait() })
	t.Cleanup(stop)
	return stop
}

func socketPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "xds.sock")
}

// servePlane is a new plane that serves until the test ends.
func servePlane(t *testing.T, cfg *mesh.NodeConfig, stuckAfter time.Duration) (p *plane, socket string) {
	t.Helper()
	p, socket = newPlane(t, cfg, stuckAfter), socketPath(t)
	p.serve(t, socket)
	return p, socket
}

// node is a running client and what it applied.
type node struct {
	*xds.Client
	applied chan *mesh.NodeConfig // every call of apply
	refuse  atomic.Pointer[error] // what apply answers
	stop    func()
}

func startClient(t *testing.T, socket, id, lastGood string) *node {
	t.Helper()
	return startRefusingClient(t, socket, id, lastGood, nil)
}

// startRefusingClient starts a client whose apply answers refusal at first.
func startRefusingClient(t *testing.T, socket, id, lastGood string, refusal *error) *node {
	t.Helper()
	c, err := xds.NewClient(xds.ClientOptions{
		Target: socket, NodeID: id, LastGood: lastGood, MaxBackoff: 100 * time.Millisecond, Log: quiet(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Client: c, applied: make(chan *mesh.NodeConfig, 10000)}
	n.refuse.Store(refusal)
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		err := c.Run(ctx, func(cfg *mesh.NodeConfig) error {
			var answer error // of now: whoever sees cfg may change it
			if refusal := n.refuse.Load(); refusal != nil {
				answer = *refusal
			}
			n.applied <- cfg
			return answer
		})
		if err != nil {
			t.Errorf("client: %v", err)
		}
	})
	n.stop = sync.OnceFunc(func() { cancel(); done.Wait() })
	t.Cleanup(n.stop)
	return n
}

// next is what the client applies next.
func (n *node) next(t *testing.T) *mesh.NodeConfig {
	t.Helper()
	select {
	case cfg := <-n.applied:
		return cfg
	case <-t.Context().Done():
	case <-time.NewTimer(patience).C:
	}
	t.Fatalf("nothing is applied; status %+v", n.Status())
	return nil
}

func (n *node) wants(t *testing.T, want *mesh.NodeConfig) {
	t.Helper()
	if diff := cmp.Diff(want, n.next(t), byValue); diff != "" {
		t.Fatalf("applied configuration (-want +got):\n%s", diff)
	}
}

// eventually polls a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("does not happen: %s", what)
		}
	}
}

func quiet(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// world is a configuration with n services of one endpoint each.
func world(n int) *mesh.NodeConfig {
	cfg := &mesh.NodeConfig{
		Clusters: []mesh.Cluster{{Name: mesh.PassthroughCluster, Type: mesh.ClusterOriginalDst, ConnectTimeout: 10 * time.Second}},
		Listeners: []mesh.Listener{{
			Name: "0.0.0.0_80", Address: netip.MustParseAddrPort("0.0.0.0:80"), Protocol: mesh.ProtocolHTTP, RouteConfig: "80",
		}},
	}
	rc := mesh.RouteConfig{Name: "80"}
	for i := range n {
		name := fmt.Sprintf("svc-%04d", i)
		host := name + ".default.svc.cluster.local"
		cluster := "outbound|80||" + host
		w := mesh.Workload{
			Name: name + "-0", Namespace: "default", Owner: name, OwnerKind: mesh.KindDeployment, Cluster: "Kubernetes",
			Labels: map[string]string{"app": name, "version": "v1"}, Ready: true,
			IP: mesh.IP(77, mesh.Index(i+2)), CaseIP: mesh.CaseIP4(mesh.Index(i + 2)), CaseIP6: mesh.CaseIP6(mesh.Index(i + 2)),
			Ports: []mesh.WorkloadPort{{Name: "http", Port: 8080, Protocol: mesh.ProtocolHTTP, WirePort: 15100}},
		}
		cfg.Workloads = append(cfg.Workloads, w)
		cfg.Clusters = append(cfg.Clusters, mesh.Cluster{
			Name: cluster, Service: mesh.ServiceRef{Host: host, Name: name, Namespace: "default"}, Port: 80, ConnectTimeout: 10 * time.Second,
		})
		cfg.Endpoints = append(cfg.Endpoints, mesh.ClusterEndpoints{
			Cluster: cluster, Endpoints: []mesh.Endpoint{{Address: netip.AddrPortFrom(w.IP, 15100), Workload: w.Key()}},
		})
		rc.VirtualHosts = append(rc.VirtualHosts, mesh.VirtualHost{
			Name: host + ":80", Domains: []string{host, host + ":80", name},
			Routes: []mesh.Route{{Name: "default", Prefix: "/", Clusters: []mesh.WeightedCluster{{Cluster: cluster, Weight: 1}}}},
		})
		cfg.Names = append(cfg.Names, mesh.Name{
			Host: host, Namespace: "default", Short: name, Addresses: []netip.Addr{mesh.ServiceVIP4(uint16(i + 1)), mesh.ServiceVIP6(uint16(i + 1))},
		})
	}
	if n > 0 {
		cfg.Routes = []mesh.RouteConfig{rc}
	} else {
		cfg.Listeners = nil
	}
	return cfg
}

func TestClientGetsConfigurationAndChanges(t *testing.T) {
	p, socket := servePlane(t, world(3), 0)
	n := startClient(t, socket, "node-a", "")
	n.wants(t, world(3))
	p.set(world(5))
	n.wants(t, world(5))
	p.set(world(1)) // with removals
	n.wants(t, world(1))
	p.set(world(0))
	n.wants(t, world(0))
	eventually(t, "all types are in sync", func() bool {
		st := p.Status()
		return len(st) == 1 && len(st[0].Types) == int(xds.Kinds) &&
			!slices.ContainsFunc(st[0].Types, func(ts ads.TypeStatus) bool { return !ts.InSync() })
	})
	if got := p.Status()[0]; got.Node != "node-a" || !got.Delta {
		t.Errorf("status %+v, want node-a, delta", got)
	}
	if got := n.Status(); !got.Connected || got.LastError != "" || got.Version == "" || got.LastApplied.IsZero() {
		t.Errorf("client status %+v, want connected, with a version and no error", got)
	}
	n.stop()
	if left := len(n.applied); left != 0 {
		t.Errorf("%d more configurations were applied, want exactly one for each change", left)
	}
}
