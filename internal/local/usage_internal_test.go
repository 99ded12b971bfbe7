package local

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// TestUsageWhileProgramsEnd: the processes may be newer than what the pod says of itself.
// Nobody's CPU time becomes another container's by that, and no counter falls.
func TestUsageWhileProgramsEnd(t *testing.T) {
	// The proxy 10 has the agent 11, the programs are 20 and 21.
	running := map[int]procStat{10: {own: 100}, 11: {ppid: 10, own: 50, reaped: 30}, 20: {ppid: 11, own: 200}, 21: {ppid: 11, own: 400}}
	ended := map[int]procStat{10: {own: 100}, 11: {ppid: 10, own: 50, reaped: 430}, 20: {ppid: 11, own: 200}}
	again := map[int]procStat{10: {own: 100}, 11: {ppid: 10, own: 50, reaped: 430}, 20: {ppid: 11, own: 200}, 22: {ppid: 11, own: 7}}
	says := func(second int, used float64) *PodStatus {
		return &PodStatus{
			Workload: mesh.Workload{Namespace: "default", Name: "web"}, ProxyPID: 10,
			Status: pod.Status{Containers: []pod.ContainerStatus{
				{Name: "setup", Init: true}, {Name: "app", PID: 20}, {Name: "worker", PID: second, CPUSeconds: used},
			}},
		}
	}
	var counters cpuCounters
	for _, tt := range []struct {
		name  string
		says  *PodStatus
		procs map[int]procStat
		want  []float64 // of app, worker and the proxy
	}{
		{"both run", says(21, 0), running, []float64{2.3, 4, 1.5}},
		{"one has ended, which is not known", says(21, 0), ended, []float64{2.3, 4, 1.5}},
		{"which is known", says(0, 4), ended, []float64{2.3, 4, 1.5}},
		{"it runs again, which is not known", says(0, 4), again, []float64{2.3, 4, 1.5}},
		{"it runs again", says(22, 4), again, []float64{2.3, 4.07, 1.5}},
	} {
		children := map[int][]int{}
		for pid, p := range tt.procs {
			children[p.ppid] = append(children[p.ppid], pid)
		}
		usage := usageOf(tt.says, tt.procs, children)
		counters.keep(usage)
		var got []float64
		for _, u := range usage {
			got = append(got, u.CPUSeconds)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, diff)
		}
	}
}
