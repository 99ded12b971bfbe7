package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

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
				"1m0s drain", "1m3s terminated app", "1m30s killed app", "1m30s end app",
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

// TestGracePeriodCountsFromTheStop: requests in flight hold up SIGTERM for half of the
// grace period, and for 15 s at most; SIGKILL comes at the end of the period.
func TestGracePeriodCountsFromTheStop(t *testing.T) {
	for _, tt := range []struct {
		grace        time.Duration
		handover     bool
		asked, ended time.Duration
	}{
		{time.Minute, true, 15 * time.Second, time.Minute},
		{time.Minute, false, 2 * time.Second, time.Minute},
		{30 * time.Second, true, 15 * time.Second, 30 * time.Second},
		{6 * time.Second, true, 3 * time.Second, 6 * time.Second},
		{3 * time.Second, true, 1500 * time.Millisecond, 3500 * time.Millisecond},
		{time.Second, true, 500 * time.Millisecond, 1500 * time.Millisecond},
		{0, true, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &stage{queue: map[string][]script{"app": {{forever: true, ignores: true}}}}
			b := bootstrap(mesh.RestartAlways, program("app"))
			b.Set.GracePeriod = tt.grace
			hooks := Hooks{Drain: func(ctx context.Context) { <-ctx.Done() }}
			_, events := play(t, b, s, hooks, func(r *Runtime) {
				after(time.Second)
				r.Stop(tt.handover)
				after(2 * time.Minute)
			})
			wantEvents(t, events, []string{
				"0s start app", fmt.Sprintf("%s terminated app", time.Second+tt.asked),
				fmt.Sprintf("%s killed app", time.Second+tt.ended), fmt.Sprintf("%s end app", time.Second+tt.ended),
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

// TestSignalDuringTheStart: the program runs, and may have said so, before Start
// has returned. What is sent to it then must not be lost.
func TestSignalDuringTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{queue: map[string][]script{"app": {{forever: true, slow: time.Second}}}}
		_, events := play(t, bootstrap(mesh.RestartAlways, program("app")), s, Hooks{}, func(r *Runtime) {
			synctest.Wait()
			if n := r.Signal("", syscall.SIGUSR1); n != 1 {
				t.Errorf("signal reached %d programs, want 1", n)
			}
			r.Stop(false)
			after(time.Second)
		})
		wantEvents(t, events, []string{"0s start app", "1s user defined signal 1 app", "1s terminated app", "1s end app"})
	})
}
