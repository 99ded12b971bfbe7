package intercept_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/intercept"
)

// TestFiles mounts files in every kind of place, and looks at them from inside
// and from outside.
func TestFiles(t *testing.T) {
	host := t.TempDir()
	if err := os.Chmod(host, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, data string) {
		t.Helper()
		path := filepath.Join(host, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("conf.d/default.conf", "of the host")
	write("conf.d/other.conf", "of the host")
	write("app/app.yaml", "of the host")
	write("app/neighbour", "of the host")
	if err := os.Symlink("conf.d", filepath.Join(host, "link")); err != nil {
		t.Fatal(err)
	}
	before := listing(t, host)
	const top = "/vitrine-test-top"

	cfg := config(t)
	cfg.Files = []intercept.File{
		{Path: host + "/conf.d/a.conf", Data: []byte("a"), Mode: 0o644, Mount: host + "/conf.d"},
		{Path: host + "/conf.d/sub/b.conf", Data: []byte("b"), Mode: 0o400, Mount: host + "/conf.d"},
		{Path: host + "/app/app.yaml", Data: []byte("replaced"), Mode: 0o600},
		{Path: host + "/new/deep/c", Data: []byte("c"), Mode: 0o644},
		{Path: host + "/new/d", Data: []byte("d"), Mode: 0o644},
		{Path: top + "/config/e", Data: []byte("e"), Mode: 0o644, Mount: top + "/config"},
		{Path: "/etc/vitrine-test/f", Data: []byte(strings.Repeat("f", 300_000)), Mode: 0o644},
	}
	cfg.Dirs = []intercept.Dir{
		{Path: host + "/cache", Volume: "v"}, {Path: top + "/cache", Volume: "v"}, {Path: host + "/scratch", Volume: "w"},
	}
	c := startCase(t, cfg)

	inside := func(script string) string {
		t.Helper()
		exit, out, err := c.Exec(testContext(t), []string{"sh", "-c", script}, nil, host)
		if err != nil || exit.Code != 0 {
			t.Fatalf("%s: %v, %v, %s", script, exit, err, out)
		}
		return string(out)
	}
	for script, want := range map[string]string{
		"ls conf.d":                                 "a.conf\nsub\n",
		"cat conf.d/a.conf conf.d/sub/b.conf":       "ab",
		"cat link/a.conf":                           "a",
		"stat -c %a conf.d/sub/b.conf":              "400\n",
		"cat app/app.yaml":                          "replaced",
		"ls app":                                    "app.yaml\nneighbour\n",
		"cat new/deep/c new/d":                      "cd",
		"cat " + top + "/config/e":                  "e",
		"wc -c < /etc/vitrine-test/f":               "300000\n",
		"ls scratch":                                "",
		"echo x > cache/y; cat " + top + "/cache/y": "x\n",
		"test -w conf.d/a.conf || echo read-only":   "read-only\n",
		"ls / | grep -cx -e usr -e etc -e proc":     "3\n",
		"cat /etc/passwd | wc -l":                   inHost(t, "/etc/passwd"),
		"echo changed > app/neighbour":              "",
		"ls /proc/fs | grep -cx 1; true":            "0\n",
		"cat /proc/1/comm":                          "exe\n",
	} {
		if got := inside(script); got != want {
			t.Errorf("%s: got %q, want %q", script, got, want)
		}
	}
	want := before
	for i, line := range want {
		if strings.HasPrefix(line, "app/neighbour ") {
			want[i] = "app/neighbour changed\n"
		}
	}
	if diff := cmp.Diff(want, listing(t, host)); diff != "" {
		t.Errorf("the host changed (-before +after)\n%s", diff)
	}
	for _, path := range []string{top, "/etc/vitrine-test"} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s on the host: %v, want that it does not exist", path, err)
		}
	}
}

// inHost counts the lines of a file on the host.
func inHost(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(strings.Count(string(data), "\n")) + "\n"
}

func listing(t *testing.T, root string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			rel += " " + string(data)
		}
		all = append(all, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestSystemFiles: the files that every case has.
func TestSystemFiles(t *testing.T) {
	c := startCase(t, config(t))
	_, out, err := c.Exec(testContext(t), []string{"sh", "-c", "grep -v '^#' /etc/resolv.conf | head -2; tail -2 /etc/hosts"}, nil, "/")
	if err != nil {
		t.Fatal(err)
	}
	want := "nameserver 10.77.0.2\n" +
		"search default.svc.cluster.local svc.cluster.local cluster.local\n" +
		"10.77.0.2\tweb-0\nfd77::2\tweb-0\n"
	if got := string(out); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestImpossibleFiles(t *testing.T) {
	for _, f := range []intercept.File{
		{Path: "relative"}, {Path: "/a/../b"}, {Path: "/"}, {Path: "/a/b", Mount: "/c"}, {Path: "/a\x00b"},
	} {
		cfg := config(t)
		cfg.Files = []intercept.File{f}
		if c, err := intercept.Start(testContext(t), cfg); err == nil {
			_ = c.Close()
			t.Errorf("%+v was accepted", f)
		}
	}
}
