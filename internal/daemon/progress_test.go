package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local"
	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func TestStatusWord(t *testing.T) {
	ended := func(code int, reason string) *pod.LastExit { return &pod.LastExit{Code: code, Reason: reason} }
	for name, c := range map[string]struct {
		status   pod.Status
		stopping bool
		want     string
	}{
		"nothing known":  {want: "Pending"},
		"case is built":  {status: pod.Status{Phase: pod.Pending, Reason: pod.ReasonCreating}, want: "ContainerCreating"},
		"runs":           {status: pod.Status{Phase: pod.Running, Containers: []pod.ContainerStatus{{State: pod.Live}}}, want: "Running"},
		"is stopped":     {status: pod.Status{Phase: pod.Running}, stopping: true, want: "Terminating"},
		"waits to retry": {status: pod.Status{Phase: pod.Running, Reason: pod.ReasonCrashLoop, Containers: []pod.ContainerStatus{{State: pod.Waiting, Reason: pod.ReasonCrashLoop}}}, want: "CrashLoopBackOff"},
		"one of two fails": {status: pod.Status{Phase: pod.Running, Reason: pod.ReasonCrashLoop, Containers: []pod.ContainerStatus{
			{State: pod.Live}, {State: pod.Waiting, Reason: pod.ReasonCrashLoop},
		}}, want: "Running"},
		"ended well":  {status: pod.Status{Phase: pod.Succeeded, Containers: []pod.ContainerStatus{{State: pod.Terminated, Reason: pod.ReasonCompleted, LastExit: ended(0, pod.ReasonCompleted)}}}, want: "Completed"},
		"ended badly": {status: pod.Status{Phase: pod.Failed, Containers: []pod.ContainerStatus{{State: pod.Terminated, Reason: pod.ReasonError, LastExit: ended(3, pod.ReasonError)}}}, want: "Error"},
		"init": {status: pod.Status{Phase: pod.Pending, Containers: []pod.ContainerStatus{
			{Init: true, State: pod.Terminated, LastExit: ended(0, pod.ReasonCompleted)}, {Init: true, State: pod.Live}, {State: pod.Waiting, Reason: pod.ReasonInit},
		}}, want: "Init:1/2"},
		"init fails": {status: pod.Status{Phase: pod.Pending, Containers: []pod.ContainerStatus{
			{Init: true, State: pod.Waiting, Reason: pod.ReasonCrashLoop}, {State: pod.Waiting, Reason: pod.ReasonInit},
		}}, want: "Init:CrashLoopBackOff"},
		"init failed": {status: pod.Status{Phase: pod.Failed, Containers: []pod.ContainerStatus{
			{Init: true, State: pod.Terminated, LastExit: ended(0, pod.ReasonCompleted)},
			{Init: true, State: pod.Terminated, Reason: pod.ReasonError, LastExit: ended(9, pod.ReasonError)},
			{State: pod.Waiting, Reason: pod.ReasonInit},
		}}, want: "Init:Error"},
		"fails after init": {status: pod.Status{Phase: pod.Failed, Containers: []pod.ContainerStatus{
			{Init: true, State: pod.Terminated, LastExit: ended(0, pod.ReasonCompleted)}, {State: pod.Terminated, Reason: pod.ReasonError, LastExit: ended(9, pod.ReasonError)},
		}}, want: "Error"},
	} {
		if got := statusWord(&local.PodStatus{Status: c.status, Stopping: c.stopping}); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestNarratorForgets: what is said of a pod is news again of the next one of its
// name, and nothing is kept of those that are gone.
func TestNarratorForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		n := newNarrator(&out, func(string) string { return "" })
		n.mute = true
		bad := Pod{Namespace: "shop", Name: "db-0", Status: pod.ReasonCrashLoop}
		for range 2 {
			out.Reset()
			n.tell(&Status{}, []Pod{bad})
			n.tell(&Status{}, []Pod{bad})
			if want := "shop/db-0 is not ready: CrashLoopBackOff\n"; out.String() != want {
				t.Errorf("said %q, want %q", out.String(), want)
			}
			n.tell(&Status{}, nil)
		}
		if len(n.pods) > 0 {
			t.Errorf("kept of a pod that is gone: %v", n.pods)
		}
	})
}

// TestNarratorTellsWhatCannotBeMade once for each reason.
func TestNarratorTellsWhatCannotBeMade(t *testing.T) {
	var out strings.Builder
	n := newNarrator(&out, func(string) string { return "" })
	for _, step := range []struct{ reason, want string }{
		{"disk is full", "Deployment shop/web: a pod cannot be made: disk is full\n"},
		{"disk is full", ""},
		{"no permission", "Deployment shop/web: a pod cannot be made: no permission\n"},
		{"", ""},
		{"no permission", "Deployment shop/web: a pod cannot be made: no permission\n"},
	} {
		s := &Status{}
		if step.reason != "" {
			s.NotMade = []NotMade{{WorkloadSet{"Deployment", "shop", "web"}, step.reason}}
		}
		out.Reset()
		n.tell(s, nil)
		if out.String() != step.want {
			t.Errorf("%q: said %q, want %q", step.reason, out.String(), step.want)
		}
	}
}

// TestNarrator holds what is said of a mesh that starts against the time at
// which it may be said.
func TestNarrator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		n := newNarrator(&out, func(string) string { return "no database\ngood bye" })
		code := 3
		web := Pod{Namespace: "shop", Name: "web", Status: "Running", Message: "probe fails"}
		bad := Pod{Namespace: "shop", Name: "bad", Status: "ContainerCreating"}
		step := func(after time.Duration, ready int, want string) {
			t.Helper()
			timer := time.NewTimer(after)
			<-timer.C
			out.Reset()
			failing := bad
			failing.Ready = ready == 2
			n.tell(&Status{Known: true, Ready: ready, Workloads: 2}, []Pod{web, failing})
			if out.String() != want {
				t.Errorf("said %q, want %q", out.String(), want)
			}
		}
		step(0, 0, "ready 0/2\n")
		step(time.Second, 0, "")
		bad.Status = "CrashLoopBackOff"
		bad.Containers = []Container{{Name: "bad", ExitCode: &code}}
		step(time.Second, 0, "shop/bad is not ready: CrashLoopBackOff; bad ended with exit code 3\n  its last lines:\n    no database\n    good bye\n")
		step(time.Second, 0, "")
		if n.hopeless([]Pod{web, bad}) {
			t.Error("given up although one is on its way")
		}
		step(patience, 0, "shop/web is not ready: Running; probe fails\n  its last lines:\n    no database\n    good bye\n")
		web.Ready = true
		step(time.Second, 1, "ready 1/2\n")
		if n.hopeless([]Pod{web, bad}) {
			t.Error("given up although one became ready just now")
		}
		step(giveUp-time.Second, 1, "")
		if n.hopeless([]Pod{web, bad}) {
			t.Error("given up before the failing one had another try")
		}
		// The failing one is ready for the moment in which it starts again.
		step(time.Second, 2, "ready 2/2\n")
		step(time.Second, 1, "")
		if n.hopeless([]Pod{web, bad}) {
			t.Error("given up although more were ready than before")
		}
		step(giveUp-time.Second, 2, "")
		step(2*time.Second, 1, "")
		if !n.hopeless([]Pod{web, bad}) {
			t.Error("still hoping")
		}
		// It recovers, which was the last thing said; that it fails and recovers
		// again is news.
		step(time.Second, 2, "")
		step(patience, 2, "")
		step(time.Second, 2, "")
		step(time.Second, 1, "shop/bad is not ready: CrashLoopBackOff; bad ended with exit code 3\n  its last lines:\n    no database\n    good bye\n")
		step(time.Second, 2, "")
		step(patience, 2, "")
		step(time.Second, 2, "ready 2/2\n")
	})
}

func TestCheckPublished(t *testing.T) {
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	taken := netip.MustParseAddrPort(ln.Addr().String())
	service := func(name string, a netip.AddrPort) mesh.Service {
		return mesh.Service{ServiceRef: mesh.ServiceRef{Name: name, Namespace: "shop"}, Ports: []mesh.ServicePort{{Publish: []netip.AddrPort{a}}}}
	}
	ctx := context.Background()
	if err := checkPublished(ctx, []mesh.Service{service("web", taken)}, nil); err == nil || !strings.Contains(err.Error(), "service web.shop wants "+taken.String()+", which is in use") {
		t.Error(err)
	}
	if err := checkPublished(ctx, []mesh.Service{service("web", taken)}, map[netip.AddrPort]bool{taken: true}); err != nil {
		t.Error(err)
	}
	both := []mesh.Service{service("web", taken), service("api", taken)}
	if err := checkPublished(ctx, both, map[netip.AddrPort]bool{taken: true}); err == nil || !strings.Contains(err.Error(), "services web.shop and api.shop both want") {
		t.Error(err)
	}
}

// TestSeriesAreScrapedBeforeTheyAreForgotten bounds one by the other.
func TestSeriesAreScrapedBeforeTheyAreForgotten(t *testing.T) {
	for _, tt := range []struct {
		scrape, evict time.Duration
		want          string
	}{
		{time.Minute, 2 * time.Minute, ""},
		{time.Minute, -1, ""},
		{time.Minute, 10 * time.Second, "--evict-after 10s: want at least 2m0s, or a negative duration for never"},
		{time.Second, 9 * time.Second, "--evict-after 9s: want at least 10s, or a negative duration for never"},
	} {
		c := Config{RunDir: "/tmp/x", DataDir: t.TempDir(), ScrapeInterval: tt.scrape, EvictAfter: tt.evict}
		got := fmt.Sprint(c.Normalize()) // which misses a vitrine-proxy in any case
		if !strings.Contains(got, tt.want) || strings.Contains(got, "--evict-after") != (tt.want != "") {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	c := Config{RunDir: t.TempDir(), DataDir: t.TempDir(), PrometheusAddr: "[::1]:9090", ControlAddr: "10.0.0.1:1", EvictAfter: time.Second, RetentionBytes: -2}
	c.RunDir = "/tmp/x"
	err := c.Normalize()
	bad, ok := errors.AsType[*ConfigError](err)
	if !ok {
		t.Fatal(err)
	}
	want := []string{"--control-addr 10.0.0.1:1: want a loopback address", "--retention-bytes -2", "--evict-after 1s"}
	if len(bad.Reasons) != len(want) {
		t.Fatalf("%d reasons: %v", len(bad.Reasons), err)
	}
	for i, w := range want {
		if !strings.HasPrefix(bad.Reasons[i].Error(), w) {
			t.Errorf("reason %v, want %s", bad.Reasons[i], w)
		}
	}
}

func TestServiceOfSurvivesItsControlPlane(t *testing.T) {
	host := netip.MustParseAddrPort("127.0.0.1:3000")
	set, service, err := programOf(&RunRequest{Service: "api", Args: []string{"x"}, Publish: []mesh.Publish{{Host: host, Port: 8080}}})
	if err != nil {
		t.Fatal(err)
	}
	m := &Mesh{runs: map[string]mesh.Service{}}
	m.readopt([]*pod.Bootstrap{{Set: set, Workload: mesh.Workload{Namespace: "default", Name: "api-1"}}})
	if got := m.runs["default/api-1"]; got.Host != service.Host || got.Ports[0].Publish[0] != host {
		t.Errorf("%+v, want %+v", got, service)
	}
}

// TestSilentPod: of a pod whose process has died nobody tells how its containers
// are, but how many there are is known.
func TestSilentPod(t *testing.T) {
	got := podOf(&local.PodStatus{Programs: []string{"web", "log"}, Status: pod.Status{Phase: pod.Running, Reason: pod.ReasonCrashLoop}}, ProxyState{})
	want := []Container{{Name: "web", State: "Waiting"}, {Name: "log", State: "Waiting"}}
	if !reflect.DeepEqual(got.Containers, want) {
		t.Errorf("got %+v, want %+v", got.Containers, want)
	}
}
