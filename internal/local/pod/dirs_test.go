package pod

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDirs: only directories of pods are listed, whatever the root is called.
func TestDirs(t *testing.T) {
	root := filepath.Join(t.TempDir(), "odd[*name")
	if dirs, err := Dirs(root); len(dirs) > 0 || err != nil {
		t.Errorf("without a root: %q, %v", dirs, err)
	}
	for _, dir := range []string{"shop/web-1", "shop/db-0", "default/cli", "empty"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"stray", "shop/stray"} {
		if err := os.WriteFile(filepath.Join(root, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dirs, err := Dirs(root)
	want := []string{filepath.Join(root, "default/cli"), filepath.Join(root, "shop/db-0"), filepath.Join(root, "shop/web-1")}
	if diff := cmp.Diff(want, dirs); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
