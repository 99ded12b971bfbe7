package sidecar

import (
	"bytes"
	"strings"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/admin"
	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/proxy"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

// A configuration that is put in force shows in the figures, and one that is
// refused in those of refusals.
func TestAppliedConfigurationIsCounted(t *testing.T) {
	rec, err := telemetry.New(telemetry.Options{Self: mesh.Workload{Name: "web-0", Namespace: "default"}})
	if err != nil {
		t.Fatal(err)
	}
	px, err := proxy.New(proxy.Options{Recorder: rec})
	if err != nil {
		t.Fatal(err)
	}
	s := &sidecar{b: &pod.Bootstrap{}, readiness: admin.NewReadiness(taskConfig), configured: make(chan struct{})}
	if err := s.apply(px, rec, &mesh.NodeConfig{}); err != nil {
		t.Fatal(err)
	}
	missing := &mesh.NodeConfig{Listeners: []mesh.Listener{{Name: "x", Direction: mesh.Inbound, Bind: true, Cluster: "nobody"}}}
	if err := s.apply(px, rec, missing); err == nil {
		t.Error("a listener without its cluster is not refused")
	}
	var b bytes.Buffer
	if err := rec.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"vitrine_xds_configs_applied_total 1", "vitrine_xds_configs_rejected_total 1"} {
		if !strings.Contains(b.String(), "\n"+want+"\n") {
			t.Errorf("no %q in the figures", want)
		}
	}
	if strings.Contains(b.String(), "\nvitrine_xds_config_age_seconds 0\n") {
		t.Error("the configuration in force has no age")
	}
}

func TestVersionNumber(t *testing.T) {
	for version, want := range map[string]uint64{
		"": 0, "vitrine-7": 7, "vitrine-ffffffffffffffff": 1<<53 - 1, "other": 0,
	} {
		if got := versionNumber(version); got != want {
			t.Errorf("%q is %d, want %d", version, got, want)
		}
	}
}
