package pod

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

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

// TestProbeMessages: what a probe was told is shown until it succeeds, also when it
// failed too seldom to have consequences.
func TestProbeMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tcp := func(port uint16) *mesh.Probe {
			return &mesh.Probe{TCP: &mesh.TCPProbe{Port: port}, Period: time.Second, FailureThreshold: 3}
		}
		c := program("app")
		c.Liveness, c.Readiness = tcp(80), tcp(81)
		s := &stage{queue: map[string][]script{"app": {{forever: true}}}}
		s.serve = func(port uint16) error {
			switch at := time.Since(s.start); {
			case port == 80 && at >= 4*time.Second && at < 5*time.Second, // once
				port == 81 && at >= 8*time.Second && at < 12*time.Second:
				return syscall.ECONNREFUSED
			}
			return nil
		}
		play(t, bootstrap(mesh.RestartAlways, c), s, Hooks{}, func(r *Runtime) {
			refused := "tcp probe of port %d: connection refused"
			at := time.Duration(0)
			for _, want := range []struct {
				at      time.Duration
				message string
				ready   bool
			}{
				{1500 * time.Millisecond, "", true},
				{4500 * time.Millisecond, fmt.Sprintf(refused, 80), true},
				{5500 * time.Millisecond, "", true},
				{8500 * time.Millisecond, fmt.Sprintf(refused, 81), true},
				{10500 * time.Millisecond, fmt.Sprintf(refused, 81), false},
				{12500 * time.Millisecond, "", true},
			} {
				after(want.at - at)
				at = want.at
				if st, _ := r.Status(); st.Containers[0].Message != want.message || st.Ready != want.ready {
					t.Errorf("after %s: %q, ready %v; want %q, %v", at, st.Containers[0].Message, st.Ready, want.message, want.ready)
				}
			}
		})
	})
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
