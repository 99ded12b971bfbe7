package pod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// script is what one start of a program does: run for a time and exit with a
// code. With forever it runs until it is told to end.
type script struct {
	run      time.Duration
	code     int
	forever  bool
	ignores  bool          // SIGTERM
	onTerm   time.Duration // time from SIGTERM to the end
	startErr error
}

// stage is a Case whose programs follow scripts, in time that a test controls.
type stage struct {
	start time.Time

	mu     sync.Mutex
	queue  map[string][]script // by Args[0]; the last one repeats
	events []string
	serve  func(port uint16) error // nil refuses
	exec   func(args []string) error
}

func (s *stage) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, fmt.Sprintf("%s ", time.Since(s.start))+fmt.Sprintf(format, args...))
}

func (s *stage) Start(p Program) (Process, error) {
	s.mu.Lock()
	q := s.queue[p.Args[0]]
	sc := q[0]
	if len(q) > 1 {
		s.queue[p.Args[0]] = q[1:]
	}
	s.mu.Unlock()
	if sc.startErr != nil {
		return nil, sc.startErr
	}
	s.note("start %s", strings.Join(p.Args, " "))
	a := &actor{s: s, name: p.Args[0], sc: sc, done: make(chan struct{})}
	if !sc.forever {
		a.end(sc.run, Exit{Code: sc.code})
	}
	return a, nil
}

func (s *stage) Exec(_ context.Context, p Program) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exec(p.Args)
}

func (s *stage) Dial(_ context.Context, port uint16) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serve == nil {
		return nil, syscall.ECONNREFUSED
	}
	if err := s.serve(port); err != nil {
		return nil, err
	}
	a, b := net.Pipe()
	b.Close()
	return a, nil
}

type actor struct {
	s    *stage
	name string
	sc   script
	done chan struct{}
	once sync.Once
	exit Exit
}

func (a *actor) end(after time.Duration, e Exit) {
	time.AfterFunc(after, func() {
		a.once.Do(func() {
			a.exit = e
			a.s.note("end %s", a.name)
			close(a.done)
		})
	})
}

func (a *actor) Signal(sig syscall.Signal) error {
	a.s.note("%s %s", sig, a.name)
	switch {
	case sig == syscall.SIGKILL:
		a.end(0, Exit{Signal: sig})
	case sig == syscall.SIGTERM && !a.sc.ignores:
		a.end(a.sc.onTerm, Exit{Code: a.sc.code})
	}
	return nil
}
func (a *actor) Done() <-chan struct{} { return a.done }
func (a *actor) Wait() Exit            { <-a.done; return a.exit }
func (a *actor) PID() int              { return 42 }

// bootstrap is a valid one for containers.
func bootstrap(restart mesh.RestartPolicy, containers ...mesh.Container) *Bootstrap {
	return &Bootstrap{
		Workload: mesh.Workload{
			Name: "web-app-6f9c7d5b8-x2k4q", Namespace: "default", Owner: "web-app", ServiceAccount: "web",
			Labels: map[string]string{"app": "web-app", "version": "v1"},
			IP:     mesh.IP(77, 5), CaseIP: mesh.CaseIP4(5), CaseIP6: mesh.CaseIP6(5),
		},
		Set:       mesh.WorkloadSet{Kind: mesh.KindDeployment, Restart: restart, GracePeriod: 30 * time.Second, Containers: containers},
		Net:       77,
		XDSSocket: "/run/x/xds.sock", ControlSocket: "/run/x/control.sock", RunDir: "/run/x/pods/default/p", StateDir: "/var/x",
	}
}

func program(name string) mesh.Container { return mesh.Container{Name: name, Args: []string{name}} }

// play runs a pod in a bubble: scene acts while it runs, and the events of the
// stage are returned when it has ended.
func play(t *testing.T, b *Bootstrap, s *stage, h Hooks, scene func(r *Runtime)) (Status, []string) {
	t.Helper()
	s.start = time.Now()
	r := New(Options{Bootstrap: b, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); r.Run(ctx, s, h) }()
	scene(r)
	cancel()
	<-ended
	st, _ := r.Status()
	return st, s.events
}

func wantEvents(t *testing.T, got, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// after lets the given time pass.
func after(d time.Duration) {
	tm := time.NewTimer(d)
	<-tm.C
	synctest.Wait()
}

func TestCrashLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{queue: map[string][]script{"app": {{run: time.Second, code: 1}}}}
		var loop ContainerStatus
		st, events := play(t, bootstrap(mesh.RestartAlways, program("app")), s, Hooks{}, func(r *Runtime) {
			after(25 * time.Second) // between the third start and the fourth
			now, _ := r.Status()
			if now.Reason != ReasonCrashLoop || now.Ready || now.Phase != Running {
				t.Errorf("pod in back-off: reason %q, ready %v, phase %s", now.Reason, now.Ready, now.Phase)
			}
			loop = now.Containers[0]
			after(28 * time.Minute)
		})
		if loop.State != Waiting || loop.Reason != ReasonCrashLoop || loop.Restarts != 2 || loop.LastExit.Code != 1 {
			t.Errorf("container in back-off: %+v", loop)
		}
		var starts []string
		for _, e := range events {
			if at, ok := strings.CutSuffix(e, " start app"); ok {
				starts = append(starts, at)
			}
		}
		// Restart at once, then 10 s doubling to 5 min after each end, 1 s a run.
		want := []string{"0s", "1s", "12s", "33s", "1m14s", "2m35s", "5m16s", "10m17s", "15m18s", "20m19s", "25m20s"}
		if diff := cmp.Diff(want, starts); diff != "" {
			t.Errorf("starts (-want +got):\n%s", diff)
		}
		// One that has only failed, and waits, was not restarted yet.
		if st.Containers[0].Restarts != len(want)-1 {
			t.Errorf("restarts %d, want %d", st.Containers[0].Restarts, len(want)-1)
		}
	})
}

func TestBackoffForgets(t *testing.T) {
	var b Backoff
	now := time.Unix(1000, 0)
	for _, want := range []time.Duration{0, 10 * time.Second, 20 * time.Second} {
		if got := b.Next(now); got != want {
			t.Fatalf("delay %s, want %s", got, want)
		}
		now = now.Add(want).Add(time.Second)
	}
	if got := b.Next(now.Add(10 * time.Minute)); got != 0 {
		t.Errorf("after ten minutes of running the delay is %s, want none", got)
	}
}

func TestRestartPolicies(t *testing.T) {
	for _, tc := range []struct {
		policy mesh.RestartPolicy
		codes  []int
		starts int
		phase  Phase
	}{
		{mesh.RestartNever, []int{0}, 1, Succeeded},
		{mesh.RestartNever, []int{3}, 1, Failed},
		{mesh.RestartOnFailure, []int{1, 1, 0}, 3, Succeeded},
	} {
		t.Run(fmt.Sprint(tc.policy, tc.codes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var q []script
				for _, c := range tc.codes {
					q = append(q, script{run: time.Second, code: c})
				}
				s := &stage{queue: map[string][]script{"app": q}}
				st, events := play(t, bootstrap(tc.policy, program("app")), s, Hooks{}, func(*Runtime) { after(time.Hour) })
				starts := 0
				for _, e := range events {
					if strings.HasSuffix(e, "start app") {
						starts++
					}
				}
				if starts != tc.starts || st.Phase != tc.phase {
					t.Errorf("%d starts and phase %s, want %d and %s", starts, st.Phase, tc.starts, tc.phase)
				}
				if last := st.Containers[0].LastExit; last.Code != tc.codes[len(tc.codes)-1] {
					t.Errorf("last exit %+v", last)
				}
			})
		})
	}
}

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
			c.Sidecar = &mesh.Sidecar{AfterInit: after}
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
	late.Sidecar = &mesh.Sidecar{AfterInit: 1}
	early := program("early")
	early.Sidecar = &mesh.Sidecar{}
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

func TestStopIsGraceful(t *testing.T) {
	for name, tc := range map[string]struct {
		app  script
		want []string
	}{
		"ends in time": {
			script{forever: true, onTerm: 2 * time.Second},
			[]string{
				"0s start app", "0s ready true", "1m0s ready false",
				"1m0s drain", "1m3s terminated app", "1m5s end app",
			},
		},
		"ignores SIGTERM": {
			script{forever: true, ignores: true},
			[]string{
				"0s start app", "0s ready true", "1m0s ready false",
				"1m0s drain", "1m3s terminated app", "1m33s killed app", "1m33s end app",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &stage{queue: map[string][]script{"app": {tc.app}}}
				h := Hooks{
					Ready: func(ready bool) { s.note("ready %v", ready) },
					Drain: func(ctx context.Context) { s.note("drain"); sleep(ctx, 3*time.Second) },
				}
				st, events := play(t, bootstrap(mesh.RestartAlways, program("app")), s, h, func(r *Runtime) {
					after(time.Minute)
					r.Stop(true)
					r.Stop(true)
					after(time.Minute)
				})
				wantEvents(t, events, tc.want)
				if !st.Phase.Ended() || st.Ready || st.Containers[0].Restarts != 0 {
					t.Errorf("status %+v", st)
				}
			})
		})
	}
}

func TestStopDuringBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{queue: map[string][]script{"app": {{run: time.Second, code: 1}}}}
		st, events := play(t, bootstrap(mesh.RestartAlways, program("app")), s, Hooks{}, func(r *Runtime) {
			after(5 * time.Second)
			r.Stop(true)
			after(time.Second)
			if now, _ := r.Status(); now.Phase != Failed {
				t.Errorf("one second after Stop the phase is %s", now.Phase)
			}
		})
		wantEvents(t, events, []string{"0s start app", "1s end app", "1s start app", "2s end app"})
		if last := st.Containers[0].LastExit; last == nil || last.Code != 1 {
			t.Errorf("last exit %+v", last)
		}
	})
}

func TestFailedHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{queue: map[string][]script{"app": {{forever: true, onTerm: time.Second}}}}
		h := Hooks{Ready: func(ready bool) { s.note("ready %v", ready) }}
		_, events := play(t, bootstrap(mesh.RestartAlways, program("app")), s, h, func(r *Runtime) {
			after(time.Second)
			r.FailHealth(true)
			r.FailHealth(true)
			after(time.Second)
			r.FailHealth(false)
			after(time.Second)
		})
		wantEvents(t, events[:4], []string{"0s start app", "0s ready true", "1s ready false", "2s ready true"})
	})
}

func TestRestartInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{queue: map[string][]script{"app": {{forever: true, onTerm: time.Second}}}}
		_, events := play(t, bootstrap(mesh.RestartAlways, program("app")), s, Hooks{}, func(r *Runtime) {
			for range 3 { // no back-off, however often
				after(10 * time.Second)
				if n := r.Restart("app"); n != 1 {
					t.Errorf("restarted %d containers", n)
				}
			}
			after(5 * time.Second)
			if n := r.Restart("nobody"); n != 0 {
				t.Errorf("restarted %d containers of another name", n)
			}
		})
		wantEvents(t, events[:10], []string{
			"0s start app", "10s terminated app", "11s end app",
			"11s start app", "20s terminated app", "21s end app",
			"21s start app", "30s terminated app", "31s end app",
			"31s start app",
		})
	})
}

func TestProbes(t *testing.T) {
	tcp := &mesh.TCPProbe{Port: 80}
	probe := func(period time.Duration, failures int) *mesh.Probe {
		return &mesh.Probe{TCP: tcp, Period: period, FailureThreshold: failures}
	}
	open := func(from, to time.Duration, s *stage) func(uint16) error {
		return func(port uint16) error {
			if at := time.Since(s.start); port == 80 && at >= from && at < to {
				return nil
			}
			return syscall.ECONNREFUSED
		}
	}
	for name, tc := range map[string]struct {
		container mesh.Container
		from, to  time.Duration // port 80 is open
		length    time.Duration
		want      []string
	}{
		"readiness follows the program": {
			mesh.Container{Readiness: probe(time.Second, 2)},
			2500 * time.Millisecond, 10500 * time.Millisecond, 20 * time.Second,
			[]string{"0s start app", "3s ready true", "12s ready false"},
		},
		"initial delay": {
			mesh.Container{Readiness: &mesh.Probe{TCP: tcp, InitialDelay: 7 * time.Second}},
			0, time.Hour, 20 * time.Second,
			[]string{"0s start app", "7s ready true"},
		},
		"success threshold": {
			mesh.Container{Readiness: &mesh.Probe{TCP: tcp, Period: time.Second, SuccessThreshold: 3}},
			0, time.Hour, 20 * time.Second,
			[]string{"0s start app", "2s ready true"},
		},
		"liveness restarts": {
			mesh.Container{Liveness: probe(5*time.Second, 3)},
			0, 7 * time.Second, 35 * time.Second,
			[]string{
				"0s start app", "0s ready true", "20s terminated app", "21s end app", "21s ready false",
				"21s start app", "21s ready true", "31s terminated app", "32s end app", "32s ready false",
			},
		},
		"startup holds the others back": {
			mesh.Container{Startup: probe(10*time.Second, 30), Liveness: probe(time.Second, 1), Readiness: probe(time.Second, 1)},
			25 * time.Second, 40500 * time.Millisecond, 41500 * time.Millisecond,
			[]string{"0s start app", "30s ready true", "41s ready false", "41s terminated app"},
		},
		"startup fails": {
			mesh.Container{Startup: probe(time.Second, 5)},
			time.Hour, time.Hour, 8 * time.Second,
			[]string{"0s start app", "4s terminated app", "5s end app", "5s start app"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc.container.Name, tc.container.Args = "app", []string{"app"}
				s := &stage{queue: map[string][]script{"app": {{forever: true, onTerm: time.Second, code: 1}}}}
				s.serve = open(tc.from, tc.to, s)
				h := Hooks{Ready: func(ready bool) { s.note("ready %v", ready) }}
				n := 0
				_, events := play(t, bootstrap(mesh.RestartAlways, tc.container), s, h, func(*Runtime) {
					after(tc.length)
					s.mu.Lock()
					n = len(s.events)
					s.mu.Unlock()
				})
				got := slices.Clone(events[:n])
				slices.SortStableFunc(got, func(a, b string) int { // two probes of one moment have no order
					x, _, _ := strings.Cut(a, " ")
					y, _, _ := strings.Cut(b, " ")
					if x != y || x != "41s" {
						return 0
					}
					return strings.Compare(a, b)
				})
				wantEvents(t, got, tc.want)
			})
		})
	}
}

func TestExecProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		s := &stage{
			queue: map[string][]script{"app": {{forever: true}}},
			exec: func(args []string) error {
				asked = args
				return errors.New("exit code 1")
			},
		}
		c := program("app")
		c.Readiness = &mesh.Probe{Exec: []string{"check", mesh.FieldRef("status.podIP")}}
		play(t, bootstrap(mesh.RestartAlways, c), s, Hooks{}, func(r *Runtime) {
			after(time.Minute)
			if st, _ := r.Status(); st.Ready {
				t.Error("ready although the probe fails")
			}
		})
		if diff := cmp.Diff([]string{"check", "10.77.0.5"}, asked); diff != "" {
			t.Errorf("probe command (-want +got):\n%s", diff)
		}
	})
}

func TestStartErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		code int
	}{
		"missing":        {fmt.Errorf("start app: %w", os.ErrNotExist), 127},
		"not executable": {fmt.Errorf("start app: %w", os.ErrPermission), 126},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &stage{queue: map[string][]script{"app": {{startErr: tc.err}}}}
				st, _ := play(t, bootstrap(mesh.RestartNever, program("app")), s, Hooks{}, func(*Runtime) { after(time.Second) })
				last := st.Containers[0].LastExit
				if st.Phase != Failed || last.Code != tc.code || last.Reason != ReasonStartError || last.Message != tc.err.Error() {
					t.Errorf("phase %s, last exit %+v", st.Phase, last)
				}
			})
		})
	}
}

// TestRestartsAreThoseThatHappened: a failure alone is none, what earlier
// processes of the pod did counts, and a case that is gone restarts nothing.
func TestRestartsAreThoseThatHappened(t *testing.T) {
	missing := script{startErr: fmt.Errorf("start app: %w", os.ErrNotExist)}
	gone := script{startErr: errors.New("start app: the case is gone")}
	fails := script{run: time.Second, code: 1}
	for name, tc := range map[string]struct {
		before  int // runs under earlier processes
		scripts []script
		after   time.Duration
		want    int
	}{
		"not yet started":           {0, []script{fails}, 0, 0},
		"first run":                 {0, []script{fails}, 500 * time.Millisecond, 0},
		"failed once":               {0, []script{fails}, 1500 * time.Millisecond, 1},
		"waits for the second time": {0, []script{fails}, 5 * time.Second, 1},
		"missing program":           {0, []script{missing}, 5 * time.Second, 1},
		"earlier processes":         {3, []script{fails}, 500 * time.Millisecond, 3},
		"the case dies":             {3, []script{fails, gone}, 5 * time.Second, 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := bootstrap(mesh.RestartAlways, program("app"))
				if tc.before > 0 {
					b.Runs = map[string]int{"app": tc.before}
				}
				play(t, b, &stage{queue: map[string][]script{"app": tc.scripts}}, Hooks{}, func(r *Runtime) {
					after(tc.after)
					if st, _ := r.Status(); st.Restarts() != tc.want {
						t.Errorf("%d restarts, want %d: %+v", st.Restarts(), tc.want, st.Containers[0])
					}
				})
			})
		})
	}
}

func TestContainersShareThePod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := program("a"), program("b")
		b.Readiness = &mesh.Probe{TCP: &mesh.TCPProbe{Port: 80}, InitialDelay: 5 * time.Second}
		s := &stage{
			queue: map[string][]script{"a": {{forever: true}}, "b": {{forever: true}}},
			serve: func(uint16) error { return nil },
		}
		play(t, bootstrap(mesh.RestartAlways, a, b), s, Hooks{}, func(r *Runtime) {
			after(time.Second)
			if st, _ := r.Status(); st.Ready || !st.Containers[0].Ready || st.Containers[1].Ready {
				t.Errorf("at 1 s: %+v", st)
			}
			after(5 * time.Second)
			if st, _ := r.Status(); !st.Ready {
				t.Errorf("at 6 s: %+v", st)
			}
			if n := r.Signal("b", syscall.SIGUSR1); n != 1 {
				t.Errorf("signal reached %d programs, want 1", n)
			}
			if n := r.Signal("", syscall.SIGUSR2); n != 2 {
				t.Errorf("signal reached %d programs, want 2", n)
			}
		})
	})
}
