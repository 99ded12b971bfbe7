package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestLastWill: of a mesh that did not start, the cause is told, and nothing of
// what it or an earlier one said before.
func TestLastWill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vitrine.log")
	died := errors.New("exit status 1")
	const before = "ready 3/3\nvitrine: the cause of an earlier end\n"
	for name, tc := range map[string]struct {
		log  string
		from int64
		err  error
		want string
	}{
		"one line": {
			before + "ready 0/2\nvitrine: port 80 is taken: stop what has it\n", int64(len(before)), died,
			"the mesh did not start: port 80 is taken: stop what has it\n(its log is " + path + ")",
		},
		"several reasons and lines": {
			"noise\nvitrine: first\nvitrine: second\nof two lines\n", 0, died,
			"the mesh did not start: first\nsecond\nof two lines\n(its log is " + path + ")",
		},
		"it crashed": {
			before + "panic: oh\n\nmain()\n", int64(len(before)), died,
			"the mesh ended at once: exit status 1; the end of its log, " + path + ":\n  panic: oh\n  \n  main()",
		},
		"the log was renamed": {
			"vitrine: full\n", 10 << 20, died,
			"the mesh did not start: full\n(its log is " + path + ")",
		},
		"without a word": {
			before, int64(len(before)), nil,
			"the mesh ended at once: nobody knows why; the end of its log, " + path + ":\n  ",
		},
	} {
		if err := os.WriteFile(path, []byte(tc.log), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := (lastWill{path, tc.from}).read(tc.err).Error(); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// TestNotReady: what is said of a mesh that does not settle is true, and names
// something.
func TestNotReady(t *testing.T) {
	web := Pod{Namespace: "shop", Name: "web-1", Status: "Running", Ready: true, Phase: "Running"}
	bad, again := web, web
	bad.Name, bad.Status, bad.Ready = "bad-1", "CrashLoopBackOff", false
	again.Name, again.Restarts = "again-1", 2
	full := []NotMade{{WorkloadSet{"Deployment", "shop", "api"}, "write bootstrap: no space left on device"}}
	for name, tc := range map[string]struct {
		status Status
		pods   []Pod
		want   string
	}{
		"a pod":     {Status{}, []Pod{web, bad}, "1 of 2 workloads WHAT:\n  shop/bad-1: CrashLoopBackOff\n"},
		"restarted": {Status{Known: true}, []Pod{web, again}, "1 of 2 workloads WHAT:\n  shop/again-1: Running, but it was restarted 2 times\n"},
		"not made":  {Status{Known: true, NotMade: full}, []Pod{web}, "Deployment shop/api: a pod cannot be made: write bootstrap: no space left on device\n"},
		"both": {
			Status{NotMade: full},
			[]Pod{bad},
			"1 of 1 workloads WHAT:\n  shop/bad-1: CrashLoopBackOff\nDeployment shop/api: a pod cannot be made: write bootstrap: no space left on device\n",
		},
		"not known": {Status{}, []Pod{web}, "not every proxy has its newest configuration after 2m0s: see `vitrine ps -o wide`, and the control plane's log, LOG\n"},
		"nothing":   {Status{Known: true}, []Pod{web}, "the mesh has not settled after 2m0s, although nothing is amiss with what runs: its log may tell why, LOG\n"},
	} {
		want := tc.want + "the mesh goes on: see `vitrine ps` and `vitrine logs`; `vitrine down` stops it"
		if got := notReady(&tc.status, tc.pods, "WHAT", "LOG").Error(); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
