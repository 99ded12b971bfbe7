package ads_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/control"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/xds/ads"
)

// TestThousandServices measures full and small pushes of 1,000 services with
// 2,000 endpoints.
func TestThousandServices(t *testing.T) {
	plane := newControl(t, 1000, 2000)
	cfg, err := plane.View("default/svc-0000-0")
	if err != nil {
		t.Fatal(err)
	}
	p, socket := servePlane(t, cfg, 0)
	begin := time.Now()
	n := startClient(t, socket, "node", "")
	got := n.next(t)
	full := time.Since(begin)
	if diff := cmp.Diff(cfg, got, byValue); diff != "" {
		t.Errorf("applied (-want +got):\n%s", diff)
	}
	sizes := metricsOf(t, p)

	plane.RemoveWorkload("default/svc-0500-1")
	waitVersion(t, plane, 2)
	changed, err := plane.View("default/svc-0000-0")
	if err != nil {
		t.Fatal(err)
	}
	begin = time.Now()
	p.set(changed)
	got = n.next(t)
	delta := time.Since(begin)
	if diff := cmp.Diff(changed, got, byValue); diff != "" {
		t.Errorf("applied (-want +got):\n%s", diff)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("full push %v, one endpoint less %v, heap %d MB\n%s", full, delta, m.HeapAlloc>>20, sums(sizes))
	before, after := sum(t, sizes, "eds"), sum(t, metricsOf(t, p), "eds")
	if after-before <= 0 || after-before > 10<<10 {
		t.Errorf("one endpoint less sends %g bytes of endpoints, want at most 10 KiB", after-before)
	}
}

func sums(metrics string) string {
	var out []string
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "pilot_xds_config_size_bytes_sum") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

func sum(t *testing.T, metrics, kind string) float64 {
	t.Helper()
	for line := range strings.Lines(metrics) {
		var v float64
		if n, err := fmt.Sscanf(line, `pilot_xds_config_size_bytes_sum{type="`+kind+`"} %g`, &v); err == nil && n == 1 {
			return v
		}
	}
	t.Fatalf("no size of %s in\n%s", kind, metrics)
	return 0
}

func newControl(t *testing.T, services, workloads int) *control.Plane {
	t.Helper()
	p, err := control.New(control.Options{Net: 77, Log: quiet(t)})
	if err != nil {
		t.Fatal(err)
	}
	svcs := make([]mesh.Service, 0, services)
	for i := range services {
		name := fmt.Sprintf("svc-%04d", i)
		svcs = append(svcs, mesh.Service{
			ServiceRef: mesh.ServiceRef{Name: name, Namespace: "default"}, Selector: map[string]string{"app": name},
			Ports: []mesh.ServicePort{{Name: "http", Port: 80, TargetPort: 8080, Protocol: mesh.ProtocolHTTP}},
		})
	}
	p.SetServices("test", svcs)
	for i := range workloads {
		p.SetWorkload(replica(i, services, true))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Errorf("control plane: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	waitVersion(t, p, 1)
	return p
}

func replica(i, services int, ready bool) mesh.Workload {
	name := fmt.Sprintf("svc-%04d", i%services)
	return mesh.Workload{
		Name: fmt.Sprintf("%s-%d", name, i/services), Namespace: "default", Owner: name, OwnerKind: mesh.KindDeployment,
		Labels: map[string]string{"app": name, "version": "v1"}, Ready: ready,
		Ports: []mesh.WorkloadPort{{Name: "http", Port: 8080, Protocol: mesh.ProtocolHTTP}},
	}
}

func waitVersion(t *testing.T, p *control.Plane, version uint64) {
	t.Helper()
	eventually(t, fmt.Sprintf("version %d", version), func() bool { return p.Snapshot().Version >= version })
}

// TestConfigurationStorm changes workloads as fast as 1,000 times a second for
// three seconds, with proxies connected: all of them end with the last state,
// and memory does not grow with the number of changes.
func TestConfigurationStorm(t *testing.T) {
	const services, proxies, rounds = 50, 4, 30
	plane := newControl(t, services, services)
	server, err := ads.NewServer(ads.ServerOptions{
		Config: func(id string) (*mesh.NodeConfig, error) { return plane.View(id) }, Log: quiet(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	socket := socketPath(t)
	serve(t, server, socket)
	follow(t, server, plane)
	var nodes []*node
	for i := range proxies {
		nodes = append(nodes, startClient(t, socket, fmt.Sprintf("default/svc-%04d-0", i), ""))
	}
	for _, n := range nodes {
		n.next(t)
	}
	goroutines := runtime.NumGoroutine()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for r := range rounds {
		for i := range 100 {
			plane.SetWorkload(replica((r*100+i)%services, services, (r+i)%2 == 0))
		}
		<-tick.C
	}
	for i := range services {
		plane.SetWorkload(replica(i, services, i != 7))
	}
	plane.RemoveWorkload("default/svc-0009-0")
	last := time.Now()
	for _, n := range nodes {
		eventually(t, "the last state arrives", func() bool {
			for {
				select {
				case cfg := <-n.applied:
					if converged(cfg) {
						return true
					}
				default:
					return false
				}
			}
		})
	}
	t.Logf("all proxies converged %v after the last change; %d versions for %d changes", time.Since(last), plane.Snapshot().Version, rounds*100)
	if now := runtime.NumGoroutine(); now > goroutines+10 {
		t.Errorf("%d goroutines after the storm, %d before", now, goroutines)
	}
}

func converged(cfg *mesh.NodeConfig) bool {
	if len(cfg.Workloads) != 49 {
		return false
	}
	for _, e := range cfg.Endpoints {
		gone := strings.Contains(e.Cluster, "svc-0007.") || strings.Contains(e.Cluster, "svc-0009.")
		if (len(e.Endpoints) == 0) != gone {
			return false
		}
	}
	return true
}

// follow tells the server of every change of the control plane until the test
// ends.
func follow(t *testing.T, server *ads.Server, plane *control.Plane) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		for range plane.Watch(ctx) {
			server.Notify()
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
}
