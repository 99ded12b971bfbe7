package pod

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func TestInitContainersRunInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bootstrap(mesh.RestartAlways, program("app"))
		b.Set.InitContainers = []mesh.Container{program("first"), program("second")}
		s := &stage{queue: map[string][]script{
			"first":  {{run: time.Second}},
			"second": {{run: time.Second, code: 1}, {run: time.Second}},
			"app":    {{forever: true}},
		}}
		_, events := play(t, b, s, Hooks{}, func(r *Runtime) {
			st, _ := r.Status()
			if st.Phase != Pending || st.Ready {
				t.Errorf("before init: phase %s, ready %v", st.Phase, st.Ready)
			}
			after(10 * time.Second)
			if st, _ = r.Status(); st.Phase != Running || !st.Ready {
				t.Errorf("after init: phase %s, ready %v", st.Phase, st.Ready)
			}
		})
		wantEvents(t, events[:7], []string{
			"0s start first", "1s end first", "1s start second", "2s end second",
			"2s start second", "3s end second", "3s start app",
		})
	})
}

// TestSidecarsKeepTheirPlace: a container that goes on running starts among the
// init containers, what follows waits for its startup probe, and it ends last.
func TestSidecarsKeepTheirPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sidecar := func(name string, after int) mesh.Container {
			c := program(name)
			c.Sidecar = &mesh.SidecarPlace{AfterInit: after}
			return c
		}
		proxy := sidecar("proxy", 1)
		proxy.Startup = &mesh.Probe{TCP: &mesh.TCPProbe{Port: 5432}, Period: time.Second, FailureThreshold: 10}
		b := bootstrap(mesh.RestartAlways, sidecar("vault", 0), proxy, program("app"))
		b.Set.InitContainers = []mesh.Container{program("first"), program("migrate")}
		if err := b.Validate(); err != nil {
			t.Fatal(err)
		}
		s := &stage{queue: map[string][]script{
			"vault":   {{run: 2 * time.Second, code: 1}, {forever: true, onTerm: time.Second}},
			"first":   {{run: time.Second}},
			"proxy":   {{forever: true}},
			"migrate": {{run: time.Second}},
			"app":     {{forever: true, onTerm: 2 * time.Second}},
		}}
		s.serve = func(uint16) error {
			if time.Since(s.start) < 4*time.Second {
				return syscall.ECONNREFUSED
			}
			return nil
		}
		st, events := play(t, b, s, Hooks{}, func(r *Runtime) {
			after(3 * time.Second)
			if st, _ := r.Status(); st.Phase != Pending || st.Ready {
				t.Errorf("while the proxy starts: phase %s, ready %v", st.Phase, st.Ready)
			}
			after(7 * time.Second)
			if st, _ := r.Status(); st.Phase != Running || !st.Ready {
				t.Errorf("after init: phase %s, ready %v", st.Phase, st.Ready)
			}
			r.Stop(false)
			after(10 * time.Second)
		})
		wantEvents(t, events[:11], []string{
			"0s start vault", "0s start first", "1s end first", "1s start proxy",
			"2s end vault", "2s start vault", "4s start migrate", "5s end migrate", "5s start app",
			"10s terminated app", "12s end app",
		})
		last := slices.Sorted(slices.Values(events[11:])) // both at once
		wantEvents(t, last, []string{"12s end proxy", "12s terminated proxy", "12s terminated vault", "13s end vault"})
		if !st.Phase.Ended() || st.Ready || st.Restarts() != 1 {
			t.Errorf("status %+v, want ended, with one restart", st)
		}
	})
}

// TestSidecarsOutOfPlace: a list in which a sidecar would never start is refused.
func TestSidecarsOutOfPlace(t *testing.T) {
	late := program("late")
	late.Sidecar = &mesh.SidecarPlace{AfterInit: 1}
	early := program("early")
	early.Sidecar = &mesh.SidecarPlace{}
	for name, set := range map[string][2][]mesh.Container{
		"after a program":    {nil, {program("app"), early}},
		"beyond the last":    {nil, {late, program("app")}},
		"in the wrong order": {{program("first")}, {late, early, program("app")}},
	} {
		b := bootstrap(mesh.RestartAlways, set[1]...)
		b.Set.InitContainers = set[0]
		if err := b.Validate(); err == nil || !strings.Contains(err.Error(), "sidecars come first") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestFailedInitFailsPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bootstrap(mesh.RestartNever, program("app"))
		b.Set.InitContainers = []mesh.Container{program("first")}
		s := &stage{queue: map[string][]script{"first": {{code: 9}}}}
		st, events := play(t, b, s, Hooks{}, func(*Runtime) { after(time.Minute) })
		wantEvents(t, events, []string{"0s start first", "0s end first"})
		if st.Phase != Failed || st.Containers[0].LastExit.Code != 9 || st.Containers[1].State != Waiting {
			t.Errorf("status %+v", st)
		}
	})
}

// TestMountsDifferBetweenContainers: one case cannot show each of them its own.
func TestMountsDifferBetweenContainers(t *testing.T) {
	file := func(data string) mesh.Container {
		return mesh.Container{Files: []mesh.File{{Path: "/m/f", Data: []byte(data), Mode: 0o644, Mount: "/m"}}}
	}
	more := file("one")
	more.Files = append(more.Files, mesh.File{Path: "/m/g", Mode: 0o644, Mount: "/m"})
	dir := func(volume string) mesh.Container {
		return mesh.Container{Dirs: []mesh.Dir{{Path: "/m", Volume: volume}}}
	}
	field := func(path string) mesh.Container {
		return mesh.Container{Files: []mesh.File{{Path: "/m", FieldPath: path, Mode: 0o644}}}
	}
	for _, tt := range []struct {
		name string
		a, b mesh.Container
		ok   bool
	}{
		{"the same files", file("one"), file("one"), true},
		{"the same directory", dir("v"), dir("v"), true},
		{"the same field", field("metadata.name"), field("metadata.name"), true},
		{"other content", file("one"), file("two"), false},
		{"a file more", file("one"), more, false},
		{"two directories", dir("v"), dir("w"), false},
		{"files and a directory", file("one"), dir("v"), false},
		{"two fields", field("metadata.name"), field("metadata.namespace"), false},
		{"a file and a directory", field("metadata.name"), file("one"), false},
	} {
		a, b := tt.a, tt.b
		a.Name, a.Args, b.Name, b.Args = "a", []string{"a"}, "b", []string{"b"}
		err := bootstrap(mesh.RestartAlways, a, b).Validate()
		if tt.ok && err != nil || !tt.ok && (err == nil || !strings.Contains(err.Error(), "container b: what is mounted at /m differs between containers")) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
