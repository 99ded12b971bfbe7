package local

import (
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// TestSteady: in the moment between its start and its end, a program that fails
// counts as ready.
func TestSteady(t *testing.T) {
	now := time.Unix(10000, 0)
	since := func(d time.Duration) time.Time { return now.Add(-d) }
	probe := &mesh.Probe{TCP: &mesh.TCPProbe{Port: 80}}
	for name, tc := range map[string]struct {
		probe  *mesh.Probe
		status pod.ContainerStatus
		want   bool
	}{
		"probed, never failed":          {probe, pod.ContainerStatus{Since: now}, true},
		"probed, restarted just now":    {probe, pod.ContainerStatus{Since: since(10*time.Second - 1), Restarts: 1}, false},
		"probed, restarted a while ago": {probe, pod.ContainerStatus{Since: since(10 * time.Second), Restarts: 1}, true},
		"unprobed, started just now":    {nil, pod.ContainerStatus{Since: since(time.Second - 1)}, false},
		"unprobed, runs":                {nil, pod.ContainerStatus{Since: since(time.Second)}, true},
		"unprobed, restarted":           {nil, pod.ContainerStatus{Since: since(time.Second), Restarts: 7}, false},
		"the clock was set back":        {nil, pod.ContainerStatus{Since: since(-time.Hour), Restarts: 7}, true},
		"an init container":             {nil, pod.ContainerStatus{Init: true, Since: now, Restarts: 7}, true},
	} {
		tc.status.Name = "app"
		p := newKeptPod(&pod.Bootstrap{Set: mesh.WorkloadSet{Containers: []mesh.Container{{Name: "app", Readiness: tc.probe}}}}, 0)
		p.status.Containers = []pod.ContainerStatus{tc.status}
		if got := p.steady(now); got != tc.want {
			t.Errorf("%s: steady %t, want %t", name, got, tc.want)
		}
	}
}

// TestCountRuns: what the next process of a pod is told about the programs'
// lives under the one that died.
func TestCountRuns(t *testing.T) {
	p := newKeptPod(&pod.Bootstrap{Runs: map[string]int{"kept": 2}}, 0)
	if n := p.restarts(); n != 1 {
		t.Errorf("%d restarts before anything is known, want 1", n)
	}
	p.status.Containers = []pod.ContainerStatus{
		{Name: "first", Init: true, Since: time.Unix(1, 0), Restarts: 5},
		{Name: "ran", Since: time.Unix(1, 0), Restarts: 3},
		{Name: "missing", LastExit: &pod.LastExit{Reason: pod.ReasonStartError}},
		{Name: "no case", LastExit: &pod.LastExit{Reason: pod.ReasonProxyError}},
		{Name: "never"},
	}
	p.countRuns()
	want := map[string]int{"kept": 2, "ran": 4, "missing": 1}
	if len(p.runs) != len(want) {
		t.Errorf("runs %v, want %v", p.runs, want)
	}
	for name, n := range want {
		if p.runs[name] != n {
			t.Errorf("%s ran %d times, want %d", name, p.runs[name], n)
		}
	}
	if p.boot.Runs["ran"] != 0 {
		t.Error("the bootstrap was changed")
	}
}
