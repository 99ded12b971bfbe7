package faults

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
	"github.com/vitrine-mesh/vitrine/internal/meshtest"
)

var bins meshtest.Binaries

func TestMain(m *testing.M) {
	os.Exit(meshtest.Main(m, &bins, "./test/scripts/hello"))
}

// The rounds of a whole run: 100, as the promise says.
const (
	sessions         = 10 // meshes, one after the other
	roundsPerSession = 10
	userSessions     = 3 // of them as an ordinary user
)

// seedEnv repeats a run: its value is the seed that a failing run printed.
const seedEnv = "VITRINE_FAULTS_SEED"

// TestKill kills a process of ours in every round, and looks at what follows.
func TestKill(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv(seedEnv); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d: %s=%d repeats this run", seed, seedEnv, seed)
	var total atomic.Int64
	t.Cleanup(func() {
		t.Logf("%d calls succeeded while no control plane was there, none failed", total.Load())
	})
	for session := range sessions {
		asUser := session < userSessions && os.Geteuid() == 0
		name := fmt.Sprintf("session %d", session)
		if asUser {
			name += " as user"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, uint64(session)))
			total.Add(int64(play(t, r, asUser)))
		})
	}
}

// play is the life of one mesh. It returns how many calls were made while it had
// no control plane.
func play(t *testing.T, r *rand.Rand, asUser bool) (alone int) {
	t.Helper()
	w := newWorld(t, asUser)
	w.Up()
	// The first control plane may die while it starts everything.
	if r.IntN(3) == 0 {
		pause(r, 600*time.Millisecond)
		w.Kill()
		w.Up()
	}
	pods := w.settled()
	killed := map[string]bool{} // pods whose next death would be met with a back-off of seconds
	for round := range roundsPerSession {
		victim := &pods[r.IntN(len(pods))]
		kind := r.IntN(5)
		if killed[victim.Name] || kind == 4 && round == 0 {
			kind = 0
		}
		t.Logf("round %d: kind %d, %s", round, kind, victim.Name)
		pause(r, 100*time.Millisecond)
		switch kind {
		case 0, 1:
			alone += w.loseControlPlane(r, pods)
		case 2:
			killed[victim.Name] = true
			w.losePod(victim, victim.ProxyPID)
		case 3:
			killed[victim.Name] = true
			w.losePod(victim, agentOf(t, victim.ProxyPID))
		case 4: // both at once
			killed[victim.Name] = true
			w.Kill()
			endure(t, victim.ProxyPID)
			pause(r, 100*time.Millisecond)
			w.Up()
		}
		pods = w.settled()
		w.wantOnly(pods)
		if t.Failed() {
			return alone
		}
	}
	w.Stop()
	if err := w.outside(nil); err != nil {
		t.Errorf("after the end: %v", err)
	}
	return alone
}

// loseControlPlane kills the control plane, sees that nobody notices, and starts
// the next one, which takes over the same processes.
func (w *world) loseControlPlane(r *rand.Rand, before []daemon.Pod) (alone int) {
	w.t.Helper()
	start := w.calls()
	w.Kill()
	dead := w.calls()
	now := w.flowing(dead, 5+r.IntN(40))
	alone = now.OK - dead.OK
	w.wantOnlyPods(before)
	w.Up()
	if r.IntN(3) == 0 { // the next one dies young
		pause(r, 300*time.Millisecond)
		w.Kill()
		w.Up()
	}
	after := w.settled()
	if end := w.calls(); end.Failed != start.Failed {
		w.t.Errorf("%d of %d calls failed: %s", end.Failed-start.Failed, end.OK-start.OK, end.Last)
	}
	for i := range before {
		b, a := &before[i], &after[i]
		if a.Name != b.Name || a.ProxyPID != b.ProxyPID || a.PIDs[0] != b.PIDs[0] || a.IP != b.IP {
			w.t.Errorf("%s: proxy %d, process %d, address %s; then %s: proxy %d, process %d, address %s",
				b.Name, b.ProxyPID, b.PIDs[0], b.IP, a.Name, a.ProxyPID, a.PIDs[0], a.IP)
		}
	}
	return alone
}

// wantOnlyPods is wantOnly without a control plane, whose sockets stay as files
// until the next one.
func (w *world) wantOnlyPods(pods []daemon.Pod) {
	w.t.Helper()
	for i := range pods {
		for _, pid := range []int{pods[i].ProxyPID, pods[i].PIDs[0]} {
			if err := syscall.Kill(pid, 0); err != nil {
				w.t.Errorf("process %d of %s died with the control plane: %v", pid, pods[i].Name, err)
			}
		}
	}
}

// losePod kills one process of a pod's proxy; the program ends with it, and both
// come back under the same name.
func (w *world) losePod(p *daemon.Pod, pid int) {
	w.t.Helper()
	endure(w.t, pid)
	meshtest.Eventually(w.t, func() error {
		pods := w.Pods()
		for i := range pods {
			now := &pods[i]
			if now.Name != p.Name {
				continue
			}
			if !now.Ready || len(now.PIDs) != 1 || now.ProxyPID == p.ProxyPID || now.PIDs[0] == p.PIDs[0] {
				return fmt.Errorf("%s: ready %t, proxy %d, processes %v", p.Name, now.Ready, now.ProxyPID, now.PIDs)
			}
			// Whatever the proxy tried in a case that was gone, the program was started
			// again once.
			if n := now.Restarts - p.Restarts; n != 1 {
				return fmt.Errorf("%s was restarted %d times, want once", p.Name, n)
			}
			return nil
		}
		return fmt.Errorf("%s is gone", p.Name)
	})
}

// endure kills a process of a pod.
func endure(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
}

// agentOf is the child of a proxy.
func agentOf(t *testing.T, proxy int) int {
	t.Helper()
	all, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", proxy))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(field); err == nil {
				return pid
			}
		}
	}
	t.Fatalf("proxy %d has no agent", proxy)
	return 0
}

// pause waits for a random time up to limit: the fault is to come at any moment.
func pause(r *rand.Rand, limit time.Duration) {
	timer := time.NewTimer(time.Duration(r.Int64N(int64(limit))))
	<-timer.C
}
