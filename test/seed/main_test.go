// Package seed holds Vitrine against the article that it was made for: every
// PromQL expression of the article is asked of the demo's shop as it stands
// there, its alerting rules are loaded, the figures are compared with the ledger
// of the shop's load, and the article's own Deployment runs beside it.
package seed

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/meshtest"
)

var bin meshtest.Binaries

func TestMain(m *testing.M) {
	os.Exit(meshtest.Main(m, &bin, "./test/seed/webapp", "./test/seed/visitor"))
}

// layOut copies the demo beside the binaries, as its YAML expects it.
func layOut(t *testing.T) (shop, webApp string) {
	t.Helper()
	if err := bin.Build("bin/demo", "./demo/cmd/..."); err != nil {
		t.Fatal(err)
	}
	demo := filepath.Join(bin.Root, "demo")
	if err := os.RemoveAll(demo); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"node", "python"} {
		if err := os.CopyFS(filepath.Join(demo, dir), os.DirFS(filepath.Join(bin.Module, "demo", dir))); err != nil {
			t.Fatal(err)
		}
	}
	return edit(t, demo, filepath.Join(bin.Module, "demo", "shop.yaml")), edit(t, demo, "testdata/web-app.yaml")
}

// edit copies a manifest to dir with other lines in places.
func edit(t *testing.T, dir, from string, oldnew ...string) string {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(text, oldnew[i]) {
			t.Fatalf("%s has no %q any more", from, oldnew[i])
		}
		text = strings.ReplaceAll(text, oldnew[i], oldnew[i+1])
	}
	path := filepath.Join(dir, filepath.Base(from))
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// words reads a file of one record per line: fields, # for comments.
func words(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 0 && f[0] != "#" {
			out = append(out, strings.Join(f, " "))
		}
	}
	return out
}
