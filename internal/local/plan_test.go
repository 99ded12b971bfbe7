package local

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func TestPlan(t *testing.T) {
	now := time.Unix(10000, 0)
	at := func(s int) time.Time { return now.Add(time.Duration(s) * time.Second) }
	for name, tc := range map[string]struct {
		set  mesh.WorkloadSet
		pods []replica
		want decision
	}{
		"deployment starts all": {
			mesh.WorkloadSet{Kind: mesh.KindDeployment, Replicas: 3},
			nil,
			decision{start: []int{0, 0, 0}},
		},
		"deployment waits for readiness": {
			mesh.WorkloadSet{Kind: mesh.KindDeployment, Replicas: 1},
			[]replica{{key: "a", hash: "new"}},
			decision{},
		},
		"deployment is settled": {
			mesh.WorkloadSet{Kind: mesh.KindDeployment, Replicas: 1},
			[]replica{{key: "a", hash: "new", ready: true, steady: true}, {key: "b", hash: "old", stopping: true}},
			decision{settled: true},
		},
		"deployment that has just failed is not settled": {
			mesh.WorkloadSet{Kind: mesh.KindDeployment, Replicas: 2},
			[]replica{{key: "a", hash: "new", ready: true, steady: true}, {key: "b", hash: "new", ready: true}},
			decision{},
		},
		"stateful set that has just failed is not settled": {
			mesh.WorkloadSet{Kind: mesh.KindStatefulSet, Replicas: 2},
			[]replica{{key: "a", hash: "new", ready: true}, {key: "b", ordinal: 1, hash: "new", ready: true, steady: true}},
			decision{},
		},
		"roll begins with one more": {
			mesh.WorkloadSet{Kind: mesh.KindDeployment, Replicas: 2},
			[]replica{{key: "a", hash: "old", ready: true}, {key: "b", hash: "old", ready: true}},
			decision{start: []int{0}},
		},
		"roll stops the youngest old one when the new one is ready": {
			mesh.WorkloadSet{Kind: mesh.KindDeployment, Replicas: 2},
			[]replica{
				{key: "a", hash: "old", ready: true, created: at(1)},
				{key: "b", hash: "old", ready: true, created: at(2)},
				{key: "c", hash: "new", ready: true, created: at(3)},
			},
			decision{stop: []string{"b"}, start: []int{0}},
		},
		"roll replaces broken old ones at once": {
			mesh.WorkloadSet{Kind: mesh.KindDeployment, Replicas: 2},
			[]replica{{key: "a", hash: "old"}, {key: "b", hash: "old", ready: true}},
			decision{stop: []string{"a"}, start: []int{0, 0}},
		},
		"scale down takes those that are not ready": {
			mesh.WorkloadSet{Kind: mesh.KindDeployment, Replicas: 1},
			[]replica{{key: "a", hash: "new", created: at(1)}, {key: "b", hash: "new", ready: true, created: at(2)}},
			decision{stop: []string{"a"}},
		},
		"recreate ends all old ones and starts nothing": {
			mesh.WorkloadSet{Kind: mesh.KindDeployment, Replicas: 2, Recreate: true},
			[]replica{{key: "a", hash: "old", ready: true}, {key: "b", hash: "old", ready: true}},
			decision{stop: []string{"a", "b"}},
		},
		"recreate waits for the end of the old ones": {
			mesh.WorkloadSet{Kind: mesh.KindDeployment, Replicas: 2, Recreate: true},
			[]replica{{key: "a", hash: "old", stopping: true}},
			decision{},
		},
		"recreate starts all when no old one is left": {
			mesh.WorkloadSet{Kind: mesh.KindDeployment, Replicas: 2, Recreate: true},
			nil,
			decision{start: []int{0, 0}},
		},
		"recreate replaces its own kind at once": {
			mesh.WorkloadSet{Kind: mesh.KindDeployment, Replicas: 2, Recreate: true},
			[]replica{{key: "a", hash: "new", stopping: true}, {key: "b", hash: "new", ready: true, steady: true}},
			decision{start: []int{0}},
		},
		"parallel stateful starts all": {
			mesh.WorkloadSet{Kind: mesh.KindStatefulSet, Replicas: 3, Parallel: true},
			[]replica{{key: "s-1", hash: "new", ordinal: 1}},
			decision{start: []int{0, 2}},
		},
		"parallel stateful shrinks at once and clears away": {
			mesh.WorkloadSet{Kind: mesh.KindStatefulSet, Replicas: 1, Parallel: true},
			[]replica{{key: "s-0", hash: "new", ended: true}, {key: "s-1", hash: "new", ordinal: 1}, {key: "s-2", hash: "new", ordinal: 2, stopping: true}},
			decision{stop: []string{"s-0", "s-1"}},
		},
		"parallel stateful rolls one by one": {
			mesh.WorkloadSet{Kind: mesh.KindStatefulSet, Replicas: 2, Parallel: true},
			[]replica{{key: "s-0", hash: "old", ready: true}, {key: "s-1", hash: "old", ready: true, ordinal: 1}},
			decision{stop: []string{"s-1"}},
		},
		"parallel stateful waits for the one before when it rolls": {
			mesh.WorkloadSet{Kind: mesh.KindStatefulSet, Replicas: 2, Parallel: true},
			[]replica{{key: "s-0", hash: "old", ready: true}, {key: "s-1", hash: "new", ordinal: 1}},
			decision{},
		},
		"stateful starts in order": {
			mesh.WorkloadSet{Kind: mesh.KindStatefulSet, Replicas: 3},
			[]replica{{key: "s-0", hash: "new", ready: true}},
			decision{start: []int{1}},
		},
		"stateful waits for the one before": {
			mesh.WorkloadSet{Kind: mesh.KindStatefulSet, Replicas: 3},
			[]replica{{key: "s-0", hash: "new"}},
			decision{},
		},
		"stateful rolls from the end": {
			mesh.WorkloadSet{Kind: mesh.KindStatefulSet, Replicas: 2},
			[]replica{{key: "s-0", hash: "old", ready: true}, {key: "s-1", hash: "old", ready: true, ordinal: 1}},
			decision{stop: []string{"s-1"}},
		},
		"stateful shrinks from the end": {
			mesh.WorkloadSet{Kind: mesh.KindStatefulSet, Replicas: 1},
			[]replica{{key: "s-1", hash: "new", ready: true, ordinal: 1}, {key: "s-0", hash: "new", ready: true}},
			decision{stop: []string{"s-1"}},
		},
		"job runs in parallel": {
			mesh.WorkloadSet{Kind: mesh.KindJob, Replicas: 2, Completions: 3, BackoffLimit: 6},
			nil,
			decision{start: []int{0, 0}},
		},
		"job does not start more than it needs": {
			mesh.WorkloadSet{Kind: mesh.KindJob, Replicas: 2, Completions: 3, BackoffLimit: 6},
			[]replica{{key: "a", hash: "new", ended: true, succeeded: true}, {key: "b", hash: "new", ended: true, succeeded: true}},
			decision{start: []int{0}},
		},
		"job runs, and may do so for long": {
			mesh.WorkloadSet{Kind: mesh.KindJob, Replicas: 1, Completions: 1, BackoffLimit: 6},
			[]replica{{key: "a", hash: "new", ready: true, steady: true}},
			decision{settled: true},
		},
		"job whose program may fail at once is not settled": {
			mesh.WorkloadSet{Kind: mesh.KindJob, Replicas: 1, Completions: 1, BackoffLimit: 6},
			[]replica{{key: "a", hash: "new", ready: true}},
			decision{},
		},
		"job is done": {
			mesh.WorkloadSet{Kind: mesh.KindJob, Replicas: 1, Completions: 1, BackoffLimit: 6},
			[]replica{{key: "a", hash: "new", ended: true, succeeded: true}},
			decision{settled: true},
		},
		"job backs off after failures": {
			mesh.WorkloadSet{Kind: mesh.KindJob, Replicas: 1, Completions: 1, BackoffLimit: 6},
			[]replica{
				{key: "a", hash: "new", ended: true, finished: at(-30)},
				{key: "b", hash: "new", ended: true, finished: at(-5)},
			},
			decision{again: 15 * time.Second},
		},
		"job is given up": {
			mesh.WorkloadSet{Kind: mesh.KindJob, Replicas: 1, Completions: 2, BackoffLimit: 1},
			[]replica{
				{key: "a", hash: "new", ended: true},
				{key: "b", hash: "new", ended: true},
				{key: "c", hash: "new", ready: true},
			},
			decision{failed: true, giveUp: []string{"c"}},
		},
		"job is given up at as many restarts in place as it has tries": {
			mesh.WorkloadSet{Kind: mesh.KindJob, Restart: mesh.RestartOnFailure, Replicas: 2, Completions: 2, BackoffLimit: 6},
			[]replica{{key: "a", hash: "new", restarts: 4}, {key: "b", hash: "new", restarts: 2}},
			decision{failed: true, giveUp: []string{"a", "b"}},
		},
		"job goes on with one restart less": {
			mesh.WorkloadSet{Kind: mesh.KindJob, Restart: mesh.RestartOnFailure, Replicas: 1, Completions: 1, BackoffLimit: 6},
			[]replica{{key: "a", hash: "new", restarts: 5}},
			decision{},
		},
		"job without a second try goes on before its first restart": {
			mesh.WorkloadSet{Kind: mesh.KindJob, Restart: mesh.RestartOnFailure, Replicas: 1, Completions: 1},
			[]replica{{key: "a", hash: "new"}},
			decision{},
		},
		"job without a second try is given up at its first restart": {
			mesh.WorkloadSet{Kind: mesh.KindJob, Restart: mesh.RestartOnFailure, Replicas: 1, Completions: 1},
			[]replica{{key: "a", hash: "new", restarts: 1}},
			decision{failed: true, giveUp: []string{"a"}},
		},
		"job forgets the restarts of pods that succeeded": {
			mesh.WorkloadSet{Kind: mesh.KindJob, Restart: mesh.RestartOnFailure, Replicas: 1, Completions: 10, BackoffLimit: 2},
			[]replica{
				{key: "a", hash: "new", ended: true, succeeded: true, restarts: 1},
				{key: "b", hash: "new", ended: true, succeeded: true, restarts: 1},
				{key: "c", hash: "new", ended: true, succeeded: true, restarts: 1},
				{key: "d", hash: "new", ready: true, steady: true},
			},
			decision{settled: true},
		},
		"job adds no restarts to pods that failed": {
			mesh.WorkloadSet{Kind: mesh.KindJob, Restart: mesh.RestartOnFailure, Replicas: 1, Completions: 1, BackoffLimit: 2},
			[]replica{{key: "a", hash: "new", ended: true, finished: at(-15)}, {key: "b", hash: "new", restarts: 1}},
			decision{},
		},
		"job whose pods are not to be restarted counts its pods": {
			mesh.WorkloadSet{Kind: mesh.KindJob, Restart: mesh.RestartNever, Replicas: 1, Completions: 1, BackoffLimit: 2},
			[]replica{{key: "a", hash: "new", restarts: 3}},
			decision{},
		},
		"job that was given up stays so": {
			mesh.WorkloadSet{Kind: mesh.KindJob, Restart: mesh.RestartOnFailure, Replicas: 1, Completions: 1, BackoffLimit: 2},
			[]replica{{key: "a", hash: "new", restarts: 2, ended: true}},
			decision{failed: true, settled: true},
		},
		"suspended job starts nothing": {
			mesh.WorkloadSet{Kind: mesh.KindJob, Completions: 1, BackoffLimit: 6},
			nil,
			decision{settled: true},
		},
		"suspended job ends what runs and keeps what ended": {
			mesh.WorkloadSet{Kind: mesh.KindJob, Completions: 4, BackoffLimit: 6},
			[]replica{
				{key: "a", hash: "new", ended: true, succeeded: true},
				{key: "b", hash: "new", ready: true, steady: true},
				{key: "c", hash: "new", stopping: true},
				{key: "d", hash: "new"},
			},
			decision{stop: []string{"d", "b"}},
		},
		"suspended job is as it should be when nothing runs": {
			mesh.WorkloadSet{Kind: mesh.KindJob, Completions: 4, BackoffLimit: 6},
			[]replica{{key: "a", hash: "new", ended: true, finished: at(-1)}},
			decision{settled: true},
		},
		"job with less parallelism ends the least valuable pods": {
			mesh.WorkloadSet{Kind: mesh.KindJob, Replicas: 1, Completions: 3, BackoffLimit: 6},
			[]replica{
				{key: "a", hash: "new", ready: true, steady: true, created: at(1)},
				{key: "b", hash: "new", ready: true, steady: true, created: at(2)},
				{key: "c", hash: "new", created: at(0)},
			},
			decision{stop: []string{"c", "b"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := plan(&tc.set, "new", tc.pods, now)
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(decision{})); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNames(t *testing.T) {
	set := mesh.WorkloadSet{Kind: mesh.KindDeployment, Namespace: "default", Name: "web-app", Replicas: 3}
	hash := templateHash(&set, "")
	if strings.Trim(hash, alphabet) != "" || hash == "" {
		t.Errorf("hash %q", hash)
	}
	more := set
	more.Replicas, more.Source, more.Recreate, more.Parallel = 5, "b.yaml:1", true, true
	if templateHash(&more, "") != hash {
		t.Error("the number of replicas changes the template")
	}
	more.Labels = map[string]string{"version": "v2"}
	if templateHash(&more, "") == hash || templateHash(&set, "now") == hash {
		t.Error("labels and restarts do not change the template")
	}
	ported := func(ports ...mesh.ContainerPort) string {
		s := set
		s.Containers = []mesh.Container{{Name: "app", Ports: ports}}
		return templateHash(&s, "")
	}
	given, http := mesh.ProtocolAuto, mesh.ContainerPort{Port: 80}
	spoken := mesh.ContainerPort{Port: 80, Protocol: mesh.ProtocolHTTP, Given: &given}
	if ported(spoken, mesh.ContainerPort{Port: 81, Targeted: true}) != ported(http) || ported(mesh.ContainerPort{Port: 81, Targeted: true}) != ported() {
		t.Error("what a Service says of ports changes the template")
	}
	if ported(http) == ported() {
		t.Error("a declared port does not change the template")
	}
	name := podName(&set, hash, 0)
	if rest, ok := strings.CutPrefix(name, "web-app-"+hash+"-"); !ok || len(rest) != 5 || strings.Trim(rest, alphabet) != "" {
		t.Errorf("pod name %q", name)
	}
	set.Name = strings.Repeat("x", 63)
	if n := len(podName(&set, hash, 0)); n != 63 {
		t.Errorf("pod name of a long name has %d bytes", n)
	}
}

// TestLastLines cuts each log into files at every place: where the last lines
// are does not matter.
func TestLastLines(t *testing.T) {
	long := strings.Repeat("x", 70<<10) // more than a block
	for _, tc := range []struct {
		in   string
		n    int
		want []string
	}{
		{"a\nb\nc\n", 2, []string{"b", "c"}},
		{"a\nb\nc", 2, []string{"b", "c"}},
		{"a\nb\nc\n", 3, []string{"a", "b", "c"}},
		{"a\nb\nc\n", 9, []string{"a", "b", "c"}},
		{"a\nb\nc\n", -1, []string{"a", "b", "c"}},
		{"a\nb\nc", -1, []string{"a", "b", "c"}},
		{"a\n\n\n", 2, []string{"", ""}},
		{"\n\n", 9, []string{"", ""}},
		{"a\nb\nc\n", 0, nil},
		{"a\nb", 0, nil},
		{"", 3, nil},
		{"", -1, nil},
	} {
		for i := range len(tc.in) + 1 {
			for j := i; j <= len(tc.in); j++ {
				path := filepath.Join(t.TempDir(), "app.log")
				checkTail(t, path, tc.n, tc.want, tc.in[:i], tc.in[i:j], tc.in[j:])
			}
		}
	}
	checkTail(t, filepath.Join(t.TempDir(), "app.log"), 2, []string{long[:64<<10], long[64<<10:], "b"}, "a\n", long, "\nb\n")
	checkTail(t, filepath.Join(t.TempDir(), "app.log"), 1, []string{"b"}, "a\n", long, "\nb\n")
}

// checkTail writes the files, oldest first, and wants the last n lines.
func checkTail(t *testing.T, path string, n int, want []string, files ...string) {
	t.Helper()
	tail := tailer{path: path}
	defer tail.close()
	for i, content := range files {
		if err := os.WriteFile(tail.numbered(len(files)-1-i), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := tail.seek(n); err != nil {
		t.Fatal(err)
	}
	var got []string
	emit := func(line []byte) { got = append(got, string(line)) }
	tail.poll(emit)
	tail.flush(emit)
	if !slices.Equal(got, want) {
		t.Errorf("last %d lines of %.20q are %.20q, want %.20q", n, files, got, want)
	}
}

// TestTailOfFullLogs holds the memory for the last lines of a full log down: one
// command line may ask for those of a hundred containers.
func TestTailOfFullLogs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	full := bytes.Repeat([]byte("0123456789abcde\n"), pod.LogFileBytes/16)
	tail := tailer{path: path}
	for i := range pod.LogFiles {
		if err := os.WriteFile(tail.numbered(i), full, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []int{0, 5} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		tail := tailer{path: path}
		err := tail.seek(n)
		lines := 0
		tail.poll(func([]byte) { lines++ })
		tail.close()
		runtime.ReadMemStats(&after)
		if err != nil || lines != n {
			t.Errorf("%d lines, %v; want %d", lines, err, n)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
			t.Errorf("the last %d lines took %d KiB", n, used>>10)
		}
	}
}

// TestTailerAcrossRotations rotates a log any number of times between two looks:
// what is kept is passed on once and in order, and also what came to a file after
// the last look at it.
func TestTailerAcrossRotations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	tail := tailer{path: path}
	defer tail.close()
	var got []string
	poll := func(want ...string) {
		t.Helper()
		got = nil
		tail.poll(func(line []byte) { got = append(got, string(line)) })
		if !slices.Equal(got, want) {
			t.Errorf("lines %q, want %q", got, want)
		}
	}
	write := func(text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	rotate := func() {
		for i := pod.LogFiles - 1; i > 0; i-- {
			_ = os.Rename(tail.numbered(i-1), tail.numbered(i))
		}
	}
	poll()
	write("before\n")
	rotate() // also before the first look that finds something
	write("a\nb")
	poll("before", "a")
	write("c\nd\n")
	rotate()
	poll("bc", "d") // there is no new file yet
	write("e\n")
	poll("e")
	write("f\n")
	rotate()
	write("g\n")
	rotate()
	write("h\n")
	poll("f", "g", "h")
	for _, line := range []string{"i\n", "j\n", "k\n", "l\n"} {
		rotate()
		write(line)
	}
	poll("j", "k", "l") // that i came is forgotten
	poll()
}

func TestParseStat(t *testing.T) {
	line := "42 (a) b) S 7 42 42 0 -1 4194560 100 200 0 0 11 12 13 14 20 0 1 0 5555 1000 20"
	got, ok := parseStat([]byte(line))
	if want := (procStat{ppid: 7, own: 23, reaped: 27}); !ok || got != want {
		t.Errorf("parsed %+v %v, want %+v", got, ok, want)
	}
	if _, ok := parseStat([]byte("42 (a) S 7")); ok {
		t.Error("a short line is accepted")
	}
}
