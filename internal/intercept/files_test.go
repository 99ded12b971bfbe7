package intercept_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
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
	for _, d := range []intercept.Dir{
		{Path: "relative", Volume: "v"}, {Path: "/a"}, {Path: "/a", Volume: ".."}, {Path: "/a", Volume: "v/../../w"}, {Path: "/a", Volume: "/v"},
	} {
		cfg := config(t)
		cfg.Dirs = []intercept.Dir{d}
		if c, err := intercept.Start(testContext(t), cfg); err == nil {
			_ = c.Close()
			t.Errorf("%+v was accepted", d)
		}
	}
}

// TestNestedMounts mounts volumes below volumes, given in an order in which the
// outer ones would hide the inner ones, and with names that do not exist yet.
func TestNestedMounts(t *testing.T) {
	host := t.TempDir()
	if err := os.Chmod(host, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"first", "deep/er/still"} {
		if err := os.MkdirAll(filepath.Join(host, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(host, "first", "host.conf"), []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("deep/er/still", filepath.Join(host, "link")); err != nil {
		t.Fatal(err)
	}
	before := listing(t, host)
	const top = "/vitrine-test-nested"

	cfg := config(t)
	file := func(mount, name, data string) intercept.File {
		return intercept.File{Path: mount + "/" + name, Data: []byte(data), Mode: 0o644, Mount: mount}
	}
	cfg.Files = []intercept.File{
		// A Secret in a ConfigMap, at places that do not exist on the host.
		file(host+"/app/secrets", "token", "t"),
		file(host+"/app", "app.conf", "a"), file(host+"/app", "sub/b.conf", "b"),
		// A file over one of the volume, and one beside them.
		{Path: host + "/app/app.conf", Data: []byte("over"), Mode: 0o644},
		{Path: host + "/app/beside.conf", Data: []byte("beside"), Mode: 0o644},
		// A ConfigMap in an empty directory, with one in it.
		file(host+"/data/cfg", "c.conf", "c"),
		// In a directory that the host has, whose neighbour comes after it.
		file(host+"/first", "f.conf", "f"), file(host+"/second", "s.conf", "s"),
		// Below a link, whose name is shorter than that of the outer volume.
		file(host+"/link/in", "i.conf", "i"), file(host+"/deep/er/still", "o.conf", "o"),
		// At the root directory.
		file(top+"/a/b", "y", "y"), file(top, "z", "z"),
	}
	cfg.Dirs = []intercept.Dir{
		{Path: host + "/app/cache", Volume: "cache"},
		{Path: host + "/app/sub/tmp/x", Volume: "tmp"},
		{Path: host + "/data/cfg/run", Volume: "run"},
		{Path: host + "/data", Volume: "data"},
		{Path: host + "/elsewhere", Volume: "cache"},
		// A directory of a volume (subPath), there before the volume itself is mounted.
		{Path: host + "/part", Volume: "whole/sub/dir"},
		{Path: host + "/whole", Volume: "whole"},
	}
	c := startCase(t, cfg)

	for script, want := range map[string]string{
		"cat app/secrets/token app/app.conf app/sub/b.conf app/beside.conf": "toverbbeside",
		"ls app":                                                                   "app.conf\nbeside.conf\ncache\nsecrets\nsub\n",
		"ls app/secrets app/sub":                                                   "app/secrets:\ntoken\n\napp/sub:\nb.conf\ntmp\n",
		"echo x > app/cache/y; cat elsewhere/y":                                    "x\n",
		"echo x > app/sub/tmp/x/y; cat app/sub/tmp/x/y":                            "x\n",
		"echo x > data/y; cat data/y; cat data/cfg/c.conf":                         "x\nc",
		"echo x > data/cfg/run/y; cat data/cfg/run/y":                              "x\n",
		"echo x > part/y; cat whole/sub/dir/y; echo z > whole/sub/z; ls whole/sub": "x\ndir\nz\n",
		"ls first; cat first/f.conf":                                               "f.conf\nf",
		"cat link/in/i.conf link/o.conf deep/er/still/in/i*":                       "ioi",
		"cat " + top + "/a/b/y " + top + "/z":                                      "yz",
		"for d in app app/secrets app/sub app/sub/tmp data/cfg first second link link/in " + top + " " + top + "/a " + top + "/a/b; do " +
			"touch $d/new 2>&1 | grep -o 'Read-only file system' | grep -c .; done": strings.Repeat("1\n", 12),
	} {
		exit, out, err := c.Exec(testContext(t), []string{"sh", "-c", script}, nil, host)
		if err != nil || exit.Code != 0 || string(out) != want {
			t.Errorf("%s: %v, %v, got %q, want %q", script, exit, err, out, want)
		}
	}
	if diff := cmp.Diff(before, listing(t, host)); diff != "" {
		t.Errorf("the host changed (-before +after)\n%s", diff)
	}
	if _, err := os.Lstat(top); !os.IsNotExist(err) {
		t.Errorf("%s on the host: %v, want that it does not exist", top, err)
	}
}

// TestVolumesLast: with a directory for them, volumes are in the next case what they
// were in the one before; files mounted in them are those of the case.
func TestVolumesLast(t *testing.T) {
	host, volumes := t.TempDir(), t.TempDir()
	before, log := listing(t, host), ""
	for _, word := range []string{"first", "second"} {
		log += word + "\n"
		t.Run(word, func(t *testing.T) { // the case ends with it
			cfg := config(t)
			cfg.VolumeDir = volumes
			cfg.Dirs = []intercept.Dir{{Path: host + "/data", Volume: "data"}, {Path: host + "/part", Volume: "data/part"}}
			cfg.Files = []intercept.File{{Path: host + "/data/cfg/name", Mount: host + "/data/cfg", Data: []byte(word), Mode: 0o644}}
			script := "echo " + word + " >> data/log; echo x > part/y; cat data/part/y data/log data/cfg/name"
			exit, out, err := startCase(t, cfg).Exec(testContext(t), []string{"sh", "-c", script}, nil, host)
			if want := "x\n" + log + word; err != nil || exit.Code != 0 || string(out) != want {
				t.Errorf("%v, %v: %q, want %q", exit, err, out, want)
			}
		})
	}
	if diff := cmp.Diff(before, listing(t, host)); diff != "" {
		t.Errorf("the host changed (-before +after)\n%s", diff)
	}
}

// TestMountOfNoPlace: what cannot be mounted is told with its path, and with what
// to do.
func TestMountOfNoPlace(t *testing.T) {
	host := t.TempDir()
	cfg := config(t)
	cfg.Files = []intercept.File{{Path: host + "/app/key", Data: []byte("a"), Mode: 0o644, Mount: host + "/app"}}
	cfg.Dirs = []intercept.Dir{{Path: host + "/app/key/below", Volume: "v"}}
	c, err := intercept.Start(testContext(t), cfg)
	if err == nil {
		_ = c.Close()
		t.Fatal("a directory was mounted below a file")
	}
	setup, ok := errors.AsType[*intercept.SetupError](err)
	if !ok {
		t.Fatalf("%v is no *SetupError", err)
	}
	if setup.Step != "mount the volumes" || !errors.Is(err, syscall.ENOTDIR) || !strings.Contains(err.Error(), host+"/app/key/below") ||
		!strings.Contains(setup.Remedy, "change the mountPath") {
		t.Errorf("%v: step %q, remedy %q", err, setup.Step, setup.Remedy)
	}
}
