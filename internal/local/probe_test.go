package local_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func TestProbesOfRealPrograms(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ready")
	for name, tc := range map[string]struct {
		args  []string
		probe mesh.Probe
		ready bool
	}{
		"http":             {[]string{"serve", "8080"}, mesh.Probe{HTTP: &mesh.HTTPProbe{Port: 8080, Path: "/health"}}, true},
		"http wrong port":  {[]string{"serve", "8080"}, mesh.Probe{HTTP: &mesh.HTTPProbe{Port: 8081, Path: "/health"}}, false},
		"tcp":              {[]string{"serve", "8080"}, mesh.Probe{TCP: &mesh.TCPProbe{Port: 8080}}, true},
		"tcp wrong port":   {[]string{"serve", "8080"}, mesh.Probe{TCP: &mesh.TCPProbe{Port: 8081}}, false},
		"grpc":             {[]string{"grpc", "8080"}, mesh.Probe{GRPC: &mesh.GRPCProbe{Port: 8080, Service: "shop"}}, true},
		"grpc not serving": {[]string{"grpc", "8080"}, mesh.Probe{GRPC: &mesh.GRPCProbe{Port: 8080}}, false},
		"grpc unknown":     {[]string{"grpc", "8080"}, mesh.Probe{GRPC: &mesh.GRPCProbe{Port: 8080, Service: "x"}}, false},
		"exec":             {[]string{"serve", "8080"}, mesh.Probe{Exec: []string{binaries.self, "check", "/"}}, true},
		"exec failing":     {[]string{"serve", "8080"}, mesh.Probe{Exec: []string{binaries.self, "check", file}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			set := deployment("web", 1, tc.args...)
			tc.probe.Period, tc.probe.Timeout, tc.probe.FailureThreshold = 50*time.Millisecond, 5*time.Second, 1
			set.Containers[0].Readiness = &tc.probe
			w.apply(t, set)
			eventually(t, func() error {
				p := w.sup.Pods()
				if len(p) == 0 || len(p[0].Status.Containers) == 0 || p[0].Status.Containers[0].State != pod.Live {
					return errors.New(w.describe())
				}
				// A probe that fails says why; one that succeeds makes it ready.
				c := p[0].Status.Containers[0]
				if c.Ready != tc.ready || !tc.ready && c.Message == "" {
					return fmt.Errorf("ready %v, message %q, want ready %v", c.Ready, c.Message, tc.ready)
				}
				return nil
			})
		})
	}
}

func TestLivenessRestartsARealProgram(t *testing.T) {
	w := newWorld(t)
	set := deployment("web", 1, "serve", "8080")
	set.Containers[0].Startup = &mesh.Probe{TCP: &mesh.TCPProbe{Port: 8080}, Period: 20 * time.Millisecond, Timeout: 5 * time.Second, FailureThreshold: 1000}
	set.Containers[0].Liveness = &mesh.Probe{
		HTTP: &mesh.HTTPProbe{Port: 8080, Path: "/health"}, Period: 50 * time.Millisecond, Timeout: 5 * time.Second, FailureThreshold: 2,
	}
	w.apply(t, set)
	p := w.settled(t)[0]
	if _, err := get(&p, "/fail"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		now := w.sup.Pods()[0]
		if now.Restarts != 1 || !now.Workload.Ready {
			return errors.New(w.describe())
		}
		return nil
	})
}
