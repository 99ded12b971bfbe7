package local_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func TestUsage(t *testing.T) {
	w := newWorld(t)
	w.apply(t, deployment("web", 1, "serve", "8080"))
	p := w.settled(t)[0]
	usage, err := w.sup.Usage()
	if err != nil || len(usage) != 2 {
		t.Fatalf("usage %+v, %v", usage, err)
	}
	app, proxy := usage[0], usage[1]
	if app.Container != "app" || proxy.Container != pod.ProxyContainer || app.Pod != p.Workload.Name {
		t.Errorf("usage %+v", usage)
	}
	if !slices.Equal(app.PIDs, []int{p.Status.Containers[0].PID}) || !slices.Contains(proxy.PIDs, p.ProxyPID) || len(proxy.PIDs) != 2 {
		t.Errorf("processes %v and %v, program %d, proxy %d", app.PIDs, proxy.PIDs, p.Status.Containers[0].PID, p.ProxyPID)
	}
	if app.WorkingSetBytes < 256<<10 || proxy.WorkingSetBytes < 1<<20 || proxy.CPUSeconds > 60 {
		t.Errorf("usage %+v", usage)
	}
	var b strings.Builder
	if err := w.sup.WriteMetrics(&b); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("container_memory_working_set_bytes{container=%q,pod=%q,namespace=\"default\"} ", pod.ProxyContainer, p.Workload.Name)
	if !strings.Contains(b.String(), want) || !strings.Contains(b.String(), "# TYPE container_cpu_usage_seconds_total counter\n") {
		t.Errorf("metrics lack %q:\n%s", want, b.String())
	}
}

// maxIdlePSS is the budget of a connected, idle proxy with 100 services and 200
// endpoints in the mesh. The program text counts in full in it: with one pod,
// only the agent in the case shares it.
const maxIdlePSS = 15 << 20

func TestIdleMemory(t *testing.T) {
	w := newWorld(t)
	var services []mesh.Service
	for i := range 100 {
		name := fmt.Sprintf("service-%d", i)
		services = append(services, mesh.Service{
			ServiceRef: mesh.ServiceRef{Name: name, Namespace: "default"}, Selector: map[string]string{"app": name},
			Ports: []mesh.ServicePort{{Name: "http", Port: 80, TargetPort: 8080, Protocol: mesh.ProtocolHTTP}},
		})
		for n := range 2 {
			podName := fmt.Sprintf("%s-%d", name, n)
			index, err := w.plane.Index("default/" + podName)
			if err != nil {
				t.Fatal(err)
			}
			w.plane.SetWorkload(mesh.Workload{
				Name: podName, Namespace: "default", Owner: name, OwnerKind: mesh.KindDeployment, Ready: true,
				Labels: map[string]string{"app": name}, IP: mesh.IP(binaries.net, index), CaseIP: mesh.CaseIP4(index), CaseIP6: mesh.CaseIP6(index),
				Ports: []mesh.WorkloadPort{{Port: 8080, Protocol: mesh.ProtocolHTTP, WirePort: mesh.PortWireBase}},
			})
		}
	}
	w.plane.SetServices("test", services)
	w.apply(t, deployment("web", 1, "serve", "8080"))
	p := w.settled(t)[0]
	eventually(t, func() error {
		body, err := fetch(netip.AddrPortFrom(p.Workload.IP, mesh.PortAdmin), "/clusters")
		if err == nil && strings.Count(body, "::observability_name::") < 100 {
			err = fmt.Errorf("the proxy knows %d clusters", strings.Count(body, "::observability_name::"))
		}
		return err
	})
	usage, err := w.sup.Usage()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range usage[1].PIDs {
		n := pss(t, pid)
		t.Logf("process %d: PSS %.1f MiB", pid, float64(n)/(1<<20))
		if pid == p.ProxyPID && n > maxIdlePSS {
			t.Errorf("PSS of an idle proxy is %.1f MiB, want at most %d", float64(n)/(1<<20), maxIdlePSS>>20)
		}
	}
}

func pss(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no Pss")
	return 0
}

// TestUsageOfEndedPrograms: what a program used stays its container's when it has ended.
func TestUsageOfEndedPrograms(t *testing.T) {
	w := newWorld(t)
	set := deployment("web", 1, "serve", "8080")
	set.Containers = append(set.Containers, mesh.Container{
		Name: "worker", Args: []string{"sh", "-c", "i=0; while [ $i -lt 1000000 ]; do i=$((i+1)); done; exit 1"},
	})
	w.apply(t, set)
	eventually(t, func() error {
		pods := w.sup.Pods()
		if len(pods) != 1 || len(pods[0].Status.Containers) != 2 || pods[0].Status.Containers[1].LastExit == nil {
			return fmt.Errorf("the worker has not ended: %+v", pods)
		}
		return nil
	})
	usage, err := w.sup.Usage()
	if err != nil || len(usage) != 3 {
		t.Fatalf("usage %+v, %v", usage, err)
	}
	app, worker := usage[0], usage[1]
	if app.Container != "app" || worker.Container != "worker" || worker.CPUSeconds < 0.1 || app.CPUSeconds >= worker.CPUSeconds {
		t.Errorf("usage %+v", usage)
	}
}
