package pod

import (
	"net/netip"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// TestFields has every field of the downward API that a manifest may name.
func TestFields(t *testing.T) {
	b := bootstrap(mesh.RestartAlways, program("web"))
	b.Workload.Labels = map[string]string{"version": "v1", "app": "web-app", "pod-template-hash": "6f9c7d5b8"}
	b.Set.Annotations = map[string]string{"note": "two\nlines, \"quoted\"", "a": "é\x01"}
	for path, want := range map[string]string{
		"metadata.name":                "web-app-6f9c7d5b8-x2k4q",
		"metadata.namespace":           "default",
		"metadata.labels['app']":       "web-app",
		"metadata.labels['none']":      "",
		"metadata.annotations['note']": "two\nlines, \"quoted\"",
		"spec.serviceAccountName":      "web",
		"spec.nodeName":                "localhost",
		"status.podIP":                 "10.77.0.5",
		"status.podIPs":                "10.77.0.5,fd77::5",
		"status.hostIP":                "127.0.0.1",
		"status.hostIPs":               "127.0.0.1",
		"metadata.generation":          "",
		"metadata.labels":              "app=\"web-app\"\npod-template-hash=\"6f9c7d5b8\"\nversion=\"v1\"", // no line feed at the end
		"metadata.annotations":         "a=\"é\\x01\"\nnote=\"two\\nlines, \\\"quoted\\\"\"",
	} {
		if got := b.Field(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	b.Workload.CaseIP6 = netip.Addr{}
	if got := b.Field("status.podIPs"); got != "10.77.0.5" {
		t.Errorf("without IPv6, status.podIPs is %q", got)
	}
	b.Workload.Labels = nil
	if got := b.Field("metadata.labels"); got != "" {
		t.Errorf("no labels are %q", got)
	}
}

// TestUID: as in Kubernetes, it is a UUID, and a later pod of the same name has
// another one.
func TestUID(t *testing.T) {
	b := bootstrap(mesh.RestartAlways, program("web"))
	b.Created = time.Unix(1_700_000_000, 123456789)
	uid := b.Field("metadata.uid")
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(uid) {
		t.Errorf("%q is no UUID of version 8", uid)
	}
	b.Created = b.Created.UTC() // as it is after a takeover
	if again := b.Field("metadata.uid"); again != uid {
		t.Errorf("%q became %q", uid, again)
	}
	b.Created = b.Created.Add(1)
	if later := b.Field("metadata.uid"); later == uid {
		t.Errorf("a later pod of the name has %q too", uid)
	}
}

// TestEnvironment: what differs from this process for a program of files, and that a
// program of `vitrine run` keeps its caller's.
func TestEnvironment(t *testing.T) {
	base := []string{"HOME=/root", "PWD=/here", "OLDPWD=/there", "A=1", "A=2"}
	b := bootstrap(mesh.RestartAlways, program("web"))
	c := &mesh.Container{Dir: "/srv", Env: []mesh.EnvVar{{Name: "A", Value: "3"}, {Name: "NS", FieldPath: "metadata.namespace"}}}
	want := []string{"HOME=/root", "PWD=/srv", "A=3", "HOSTNAME=web-app-6f9c7d5b8-x2k4q", "NS=default"}
	if got := environment(base, b, c); !slices.Equal(got, want) {
		t.Errorf("of files: %q, want %q", got, want)
	}
	b.Foreground = true
	want = []string{"HOME=/root", "PWD=/here", "OLDPWD=/there", "A=3", "NS=default"}
	if got := environment(base, b, c); !slices.Equal(got, want) {
		t.Errorf("in the foreground: %q, want %q", got, want)
	}
}
