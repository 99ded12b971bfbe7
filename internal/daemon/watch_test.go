package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// write replaces a file in one step.
func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// watching is a watchFiles that runs until the end of the test; each call of changed
// waits until it is received.
func watching(t *testing.T, paths ...string) (changes <-chan struct{}) {
	t.Helper()
	calls, version := make(chan struct{}), filesVersion(paths)
	during(t, func(ctx context.Context) error {
		return watchFiles(ctx, paths, version, slog.New(slog.DiscardHandler), func() { call(ctx, calls) })
	})
	return calls
}

func call(ctx context.Context, calls chan<- struct{}) {
	select {
	case calls <- struct{}{}:
	case <-ctx.Done():
	}
}

// during runs f until the end of the test.
func during(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := f(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
}

// overAndOver calls f until the end of the test, with pauses shorter than the quiet
// time.
func overAndOver(t *testing.T, f func(i int) error) {
	t.Helper()
	during(t, func(ctx context.Context) error {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			if err := f(i); err != nil {
				return err
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
		}
	})
}

func wantChange(t *testing.T, what string, changes <-chan struct{}) {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	select {
	case <-changes:
	case <-limit.C:
		t.Fatalf("%s: not seen for a minute", what)
	}
}

// TestWatchBesideNoise: files that are not read neither delay changes of those that
// are, nor count as changes.
func TestWatchBesideNoise(t *testing.T) {
	dir := t.TempDir()
	app := filepath.Join(dir, "app.yaml")
	write(t, app, "1")
	if err := os.Mkdir(filepath.Join(dir, ".git"), 0o700); err != nil {
		t.Fatal(err)
	}
	changes := watching(t, dir)
	overAndOver(t, func(i int) error {
		for _, name := range []string{"app.log", ".app.yaml.swp", ".git/x.yaml"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Repeat("x", i)), 0o600); err != nil {
				return err
			}
		}
		return nil
	})
	for i := range 3 {
		before := filesVersion([]string{dir})
		select {
		case <-changes:
			t.Fatalf("change %d was seen before it was made", i)
		default:
		}
		write(t, app, strconv.Itoa(10*i+20))
		if filesVersion([]string{dir}) == before {
			t.Fatal("another file has the same version")
		}
		wantChange(t, "edit "+strconv.Itoa(i), changes)
	}
}

// TestWatchRestlessFile: a file that never stays as it is is read all the same.
func TestWatchRestlessFile(t *testing.T) {
	app := filepath.Join(t.TempDir(), "app.yaml")
	write(t, app, "")
	changes := watching(t, app)
	overAndOver(t, func(i int) error { return os.WriteFile(app, []byte(strings.Repeat("x", i)), 0o600) })
	wantChange(t, "the first", changes)
	wantChange(t, "the second", changes)
}

// TestWatchSteps: what is seen of a file that changes, and when.
func TestWatchSteps(t *testing.T) {
	f := &follower{applied: "a"}
	start := time.Now()
	for i, step := range []struct {
		after        time.Duration
		version      string
		apply, again bool
	}{
		{0, "a", false, false},
		{quiet, "b", false, true}, // just now
		{2 * quiet, "b", true, false},
		{3 * quiet, "b", false, false}, // noise
		{4 * quiet, "c", false, true},
		{5 * quiet, "b", false, false}, // as it was
		{6 * quiet, "c", false, true},
		{6*quiet + restless, "d", true, true},
		{7*quiet + restless, "b", false, true}, // something else was applied meanwhile
		{8*quiet + restless, "b", true, false},
	} {
		apply, again := f.look(step.version, start.Add(step.after))
		if apply != step.apply || again != step.again {
			t.Errorf("step %d: apply %t, again %t, want %+v", i, apply, again, step)
		}
	}
}

// TestWatchLostEvents: when the kernel drops events, the files are looked at.
func TestWatchLostEvents(t *testing.T) {
	app := filepath.Join(t.TempDir(), "app.yaml")
	write(t, app, "1")
	paths := []string{app}
	f := &follower{paths: paths, add: func(string) error { return nil }, watched: map[string]string{}, applied: filesVersion(paths)}
	failures, changes := make(chan error), make(chan struct{})
	during(t, func(ctx context.Context) error {
		return f.run(ctx, nil, failures, slog.New(slog.DiscardHandler), func() { call(ctx, changes) })
	})
	write(t, app, "22")
	failures <- fsnotify.ErrEventOverflow
	wantChange(t, "an edit", changes)
}

// TestWatchKinds: in which ways files change.
func TestWatchKinds(t *testing.T) {
	dir := t.TempDir()
	in := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// As Kubernetes shows a ConfigMap.
	do(os.MkdirAll(in("config", "..1"), 0o700))
	do(os.MkdirAll(in("config", "..2"), 0o700))
	write(t, in("config", "..1", "map.yaml"), "1")
	write(t, in("config", "..2", "map.yaml"), "22")
	do(os.Symlink("..1", in("config", "..data")))
	do(os.Symlink("..data/map.yaml", in("config", "map.yaml")))
	do(os.Symlink("config", in("link")))
	write(t, in("plain.yaml"), "1")
	do(os.Symlink("plain.yaml", in("to-plain.yaml")))
	do(os.MkdirAll(in("elsewhere"), 0o700))
	write(t, in("elsewhere", "far.yaml"), "1")
	do(os.Symlink("../elsewhere/far.yaml", in("config", "far.yaml")))

	tree, file, single, linked := watching(t, in("link")), watching(t, in("plain.yaml")), watching(t, in("config", "map.yaml")), watching(t, in("to-plain.yaml"))
	// Each change is one step, so that whoever sees it sees it once.
	step := func(what string, change func(), seen ...<-chan struct{}) {
		t.Helper()
		for _, changes := range []<-chan struct{}{tree, file, single, linked} {
			select {
			case <-changes: // of an earlier step
			default:
			}
		}
		change()
		for _, changes := range seen {
			wantChange(t, what, changes)
		}
	}
	step("a file that was replaced", func() { write(t, in("plain.yaml"), "22") }, file, linked)
	step("a file that was written to", func() {
		f, err := os.OpenFile(in("plain.yaml"), os.O_WRONLY, 0) // not truncated first
		do(err)
		_, err = f.WriteString("333")
		do(errors.Join(err, f.Close()))
	}, file, linked)
	do(os.Symlink("..2", in("config", "..data.new")))
	step("a directory's link that was replaced", func() { do(os.Rename(in("config", "..data.new"), in("config", "..data"))) }, tree, single)
	step("a file at the end of a link", func() { write(t, in("elsewhere", "far.yaml"), "22") }, tree)
	step("a file in a new directory", func() {
		do(os.MkdirAll(in("config", "deep", "er"), 0o700))
		write(t, in("config", "deep", "er", "new.yaml"), "1")
	}, tree)
	step("the same", func() { write(t, in("config", "deep", "er", "new.yaml"), "22") }, tree)
	step("a directory that was removed", func() { do(os.RemoveAll(in("config", "deep"))) }, tree)
	step("a file that was removed", func() { do(os.Remove(in("plain.yaml"))) }, file, linked)
	step("the same, there again", func() { write(t, in("plain.yaml"), "4444") }, file, linked)
}

// TestReload: what is said of files that are read again, and that it is nothing if
// they ask for the same.
func TestReload(t *testing.T) {
	var progress bytes.Buffer
	m := idle(t, &progress)
	r := &reloading{mesh: m}
	file := filepath.Join(t.TempDir(), "app.yaml")
	m.cfg.Files = []string{file}
	const service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  selector: {app: web}\n  ports: [{port: PORT}]\n"
	with := func(port string) string { return strings.Replace(service, "PORT", port, 1) }
	warning := file + ":5: warning: Service/web: the selector matches no pod template in namespace default; " +
		"compare it with the labels of the templates, or start the programs by vitrine run\n"
	const web = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n" +
		"  template:\n    metadata: {labels: {app: web}}\n    spec: {containers: [{name: web, command: [/bin/true]}]}\n"
	for i, step := range []struct{ content, want string }{
		{with("80"), warning + "applied the change\n"},
		{with("80"), ""},
		{with("80") + "# a comment\n", ""},
		{with("81"), warning + "applied the change\n"},
		{with("x"), warning + file + ":6: Service/web: spec.ports[0].port must be a whole number, is the text \"x\"; write a number without quotes\n" +
			"the change was not applied: 1 error in the files; what runs goes on as before\n"},
		{with("81"), warning + "applied the change\n"}, // it is right again
		{with("81"), ""},
		{web, "applied the change\n"},
		{"# a comment above\n\n" + web, ""}, // everything is in another line
		{"# a comment above\n\n" + web, ""},
	} {
		write(t, file, step.content)
		progress.Reset()
		r.reload(t.Context())
		if got := progress.String(); got != step.want {
			t.Errorf("step %d: said %q, want %q", i, got, step.want)
		}
	}
}

// TestReloadBesideEmptyFiles: a file that never held an object holds up nothing; one
// that did, and holds none any more, does.
func TestReloadBesideEmptyFiles(t *testing.T) {
	var progress bytes.Buffer
	m := idle(t, &progress)
	r := &reloading{mesh: m}
	dir := t.TempDir()
	m.cfg.Files = []string{dir}
	app, other := filepath.Join(dir, "app.yaml"), filepath.Join(dir, "other.yaml")
	const job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: NAME}\nspec:\n  template:\n" +
		"    spec: {restartPolicy: Never, containers: [{name: NAME, command: [/bin/true]}]}\n"
	named := func(name string) string { return strings.ReplaceAll(job, "NAME", name) }
	empty := func(file string) string {
		return file + ":1: warning: the file holds no object; write one or leave the file out\n"
	}
	refused := func(file string) string {
		return "the change was not applied: " + file + " holds no object any more (to stop what it asked for, remove the file); what runs goes on as before\n"
	}
	for i, step := range []struct{ file, content, want string }{
		{app, named("a"), "applied the change\n"},
		{other, "", ""},
		{app, named("b"), empty(other) + "applied the change\n"},
		{app, "", empty(app) + empty(other) + refused(app)},
		{app, "# soon\n", empty(app) + empty(other) + refused(app)},
		{app, named("b"), empty(other) + "applied the change\n"}, // it is right again
		{other, named("c"), "applied the change\n"},
		{other, "", empty(other) + refused(other)},
		{app, named("b") + "---\n" + named("c"), empty(other) + "applied the change\n"}, // what it asked for is elsewhere
		{app, named("b"), empty(other) + "applied the change\n"},
	} {
		write(t, step.file, step.content)
		progress.Reset()
		r.reload(t.Context())
		if got := progress.String(); got != step.want {
			t.Errorf("step %d: said %q, want %q", i, got, step.want)
		}
	}
}
