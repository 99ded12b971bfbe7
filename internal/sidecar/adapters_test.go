package sidecar

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/intercept"
	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// TestMountsOfAPod: the case has what any container mounts, once; also a file that
// lies over one of the same name in a volume.
func TestMountsOfAPod(t *testing.T) {
	whole := mesh.File{Path: "/etc/app/app.conf", Data: []byte("whole"), Mode: 0o644, Mount: "/etc/app"}
	over := mesh.File{Path: "/etc/app/app.conf", Data: []byte("over"), Mode: 0o400}
	more := mesh.File{Path: "/etc/app/more", Mode: 0o644, Mount: "/etc/app"}
	data := mesh.Dir{Path: "/data", Volume: "data"}
	b := &pod.Bootstrap{
		Workload: mesh.Workload{Name: "web-0", Namespace: "default"},
		Set: mesh.WorkloadSet{
			InitContainers: []mesh.Container{{Name: "first", Dirs: []mesh.Dir{data}}},
			Containers: []mesh.Container{
				{Name: "a", Files: []mesh.File{whole, over, more}, Dirs: []mesh.Dir{data}},
				{Name: "b", Files: []mesh.File{whole, over, more, {Path: "/etc/who", FieldPath: "metadata.name", Mode: 0o444}}},
			},
		},
	}
	cfg := caseConfig(b)
	wantFiles := []intercept.File{
		{Path: "/etc/app/app.conf", Data: []byte("whole"), Mode: 0o644, Mount: "/etc/app"},
		{Path: "/etc/app/more", Mode: 0o644, Mount: "/etc/app"},
		{Path: "/etc/app/app.conf", Data: []byte("over"), Mode: 0o400},
		{Path: "/etc/who", Data: []byte("web-0"), Mode: 0o444},
	}
	if diff := cmp.Diff(wantFiles, cfg.Files); diff != "" {
		t.Errorf("files (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]intercept.Dir{{Path: "/data", Volume: "data"}}, cfg.Dirs); diff != "" {
		t.Errorf("directories (-want +got)\n%s", diff)
	}
}
