package intercept_test

import (
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/intercept"
)

// TestDiagnose: everything works here, or the other tests would fail.
func TestDiagnose(t *testing.T) {
	var got []string
	for _, c := range intercept.Diagnose(testContext(t), "") {
		if !c.OK || c.Remedy != "" {
			t.Errorf("%+v", c)
		}
		got = append(got, c.Name)
	}
	want := []string{
		"user namespace settings", "open files", "namespaces", "loopback interface and local routes", "IPv6",
		"nftables rules", "redirect of connections", "localhost services of the host (nft_tproxy, nft_socket)",
		"UDP through the proxy (nft_tproxy)", "ports below 1024", "private mounts", "process list of the case",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestDiagnoseNamesTheFault: without an agent nothing can be tried.
func TestDiagnoseNamesTheFault(t *testing.T) {
	checks := intercept.Diagnose(testContext(t), "/no/such/program")
	bad := 0
	for _, c := range checks {
		if !c.OK {
			bad++
		}
	}
	if bad == 0 {
		t.Errorf("no fault found: %+v", checks)
	}
	cfg := config(t)
	cfg.Executable = "/no/such/program"
	_, err := intercept.Start(testContext(t), cfg)
	var se *intercept.SetupError
	if !errors.As(err, &se) || se.Step != "start the agent" || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Start: %v", err)
	}
	cfg.Executable = "/bin/true" // not an agent: it ends at once
	if _, err = intercept.Start(testContext(t), cfg); !errors.As(err, &se) || se.Step != "talk to the agent" {
		t.Errorf("Start with another program: %v", err)
	}
}
