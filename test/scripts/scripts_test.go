package scripts

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vitrine-mesh/vitrine/internal/meshtest"
)

var bins meshtest.Binaries

func TestMain(m *testing.M) {
	os.Exit(meshtest.Main(m, &bins, "./test/scripts/hello"))
}

// storyLimit is when all stories that are not at their end fail, and say where
// they are: a minute is usual, a busy machine may take many times as long.
const storyLimit = 12 * time.Minute

// TestStories tells every story as the user who runs the tests.
func TestStories(t *testing.T) {
	testscript.Run(t, params(t, false, "testdata/*.txtar"))
}

// TestStoriesAsUser tells those that everything else rests on as an ordinary
// user, if the tests run as root.
func TestStoriesAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		return // TestStories did
	}
	testscript.Run(t, params(t, true,
		"testdata/lifecycle.txtar", "testdata/run.txtar", "testdata/adopt.txtar", "testdata/foreground.txtar",
		"testdata/doctor.txtar", "testdata/metrics.txtar", "testdata/names.txtar",
	))
}

func params(t *testing.T, asUser bool, patterns ...string) testscript.Params {
	t.Helper()
	root := bins.Dir(t)
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	p := testscript.Params{
		WorkdirRoot: root, RequireExplicitExec: true, Deadline: time.Now().Add(storyLimit),
		Setup: func(e *testscript.Env) error { return setup(e, root, asUser) },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"eventually": eventually, "get": get, "freeport": freePort, "fill": fill, "same": same,
		},
	}
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no story is called %s", pattern)
		}
		p.Files = append(p.Files, files...)
	}
	return p
}

// setup gives a story directories of its own and a `vitrine` that uses them: the
// stories read as a user would type them.
func setup(e *testscript.Env, root string, asUser bool) error {
	dir, err := os.MkdirTemp(root, "")
	if err != nil {
		return err
	}
	prefix := ""
	if asUser {
		id := strconv.Itoa(meshtest.User)
		prefix = "setpriv --reuid=" + id + " --regid=" + id + " --clear-groups -- "
		err = errors.Join(os.Chmod(e.WorkDir, 0o777), os.Chown(dir, meshtest.User, meshtest.User))
	}
	bin := filepath.Join(e.WorkDir, ".bin")
	err = errors.Join(err, os.MkdirAll(bin, 0o755))
	wrapper := fmt.Sprintf(`#!/bin/sh
# The real vitrine with directories and ports of its own.
sub=$1
[ $# -gt 0 ] && shift
run=${RUN_DIR:-%[1]s/r}
data=${DATA_DIR:-%[1]s/d}
case $sub in
up|run|demo) exec %[2]s%[3]s "$sub" --run-dir "$run" --data-dir "$data" --prometheus-addr 127.0.0.1:0 --control-addr 127.0.0.1:0 --scrape-interval 500ms "$@" ;;
"") exec %[2]s%[3]s ;;
-*|completion|help) exec %[2]s%[3]s "$sub" "$@" ;;
*) exec %[2]s%[3]s "$sub" --run-dir "$run" "$@" ;;
esac
`, dir, prefix, bins.Path("vitrine"))
	// A child that another story starts meanwhile would inherit the open file, and
	// to run what somebody has open for writing fails (ETXTBSY, golang/go#22315).
	syscall.ForkLock.RLock()
	err = errors.Join(err, os.WriteFile(filepath.Join(bin, "vitrine"), []byte(wrapper), 0o755))
	syscall.ForkLock.RUnlock()
	if err != nil {
		return err
	}
	e.Setenv("BASE", dir)
	e.Setenv("UID", strconv.Itoa(os.Geteuid()))
	if asUser {
		e.Setenv("UID", strconv.Itoa(meshtest.User))
	}
	e.Setenv("HOME", dir)
	e.Setenv("REAL", prefix+bins.Path("vitrine"))
	e.Setenv("PATH", bin+":"+filepath.Join(bins.Root, "bin")+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	e.Defer(func() { wantNothingLeft(e.T(), dir) })
	return nil
}

// wantNothingLeft fails a story that leaves anything, and ends its processes. One
// that has failed already did not come to stop them, so they are ended at once.
func wantNothingLeft(t testscript.T, dir string) {
	if tb, ok := t.(testing.TB); ok && tb.Failed() {
		if err := until(time.Minute, func() error { return killStrays(dir) }); err != nil {
			t.Log(err)
		}
		return
	}
	if err := until(time.Minute, func() error { return errors.Join(left(dir)...) }); err != nil {
		_ = killStrays(dir) // those that it names
		t.Fatal(err)
	}
}

// killStrays kills the processes of a story; its error names them.
func killStrays(dir string) error {
	var strays []error
	for _, err := range left(dir) {
		if p, ok := errors.AsType[strayError](err); ok {
			_ = p.process.Kill() // it carries the story's own directory in its environment
			strays = append(strays, err)
		}
	}
	return errors.Join(strays...)
}

// strayError is a process of a story that goes on after its end.
type strayError struct {
	process *os.Process
	args    string
}

func (p strayError) Error() string {
	return fmt.Sprintf("process %d is left: %s", p.process.Pid, p.args)
}

// until calls try until it returns nil, or returns its last error after limit.
func until(limit time.Duration, try func() error) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-deadline.C:
			return fmt.Errorf("after %s: %w", limit, err)
		case <-tick.C:
		}
	}
}

// left looks for processes that were started in a story, which has its directory
// in their environment, and for sockets in it.
func left(dir string) []error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return []error{err}
	}
	var found []error
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		process, err := os.FindProcess(pid) // holds a pidfd: what is read below is of this very process, or nothing
		if err != nil {
			continue
		}
		environ, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		args, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if bytes.Contains(environ, []byte("BASE="+dir+"\x00")) {
			found = append(found, strayError{process, string(bytes.ReplaceAll(args, []byte{0}, []byte{' '}))})
		} else {
			_ = process.Release()
		}
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSocket != 0 {
			found = append(found, fmt.Errorf("socket %s is left", path))
		}
		return nil
	})
	if err != nil {
		found = append(found, err)
	}
	return found
}

// eventually REGEXP COMMAND...: runs the command until it succeeds with output
// that matches; with a ! before the expression, that does not match.
// "! eventually" is not offered, since nothing can be waited for never to be.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually [!]REGEXP COMMAND [ARG...]")
	}
	pattern, absent := strings.CutPrefix(args[0], "!")
	re, err := regexp.Compile("(?m)" + pattern)
	ts.Check(err)
	poll(ts, func() error {
		if err := ts.Exec(args[1], args[2:]...); err != nil {
			return err
		}
		out := ts.ReadFile("stdout") + ts.ReadFile("stderr")
		if re.MatchString(out) == absent {
			return fmt.Errorf("%q in the output: %t; it was\n%s", pattern, !absent, out)
		}
		return nil
	})
}

func poll(ts *testscript.TestScript, try func() error) {
	if err := until(meshtest.Patience, try); err != nil {
		ts.Fatalf("%v", err)
	}
}

// get URL [REGEXP]: fetches a page of this machine until it answers 200 with a
// matching body. "! get URL" wants that nothing answers.
func get(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: get URL [REGEXP]")
	}
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	fetch := func() (string, error) {
		resp, err := client.Get(args[0])
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s answered %s: %s", args[0], resp.Status, body)
		}
		return string(body), err
	}
	if neg {
		if body, err := fetch(); err == nil {
			ts.Fatalf("%s answered %s", args[0], body)
		}
		return
	}
	poll(ts, func() error {
		body, err := fetch()
		if err == nil && len(args) > 1 && !regexp.MustCompile("(?m)"+args[1]).MatchString(body) {
			err = fmt.Errorf("%s answered %s", args[0], body)
		}
		if err == nil {
			_, err = io.WriteString(ts.Stdout(), body)
		}
		return err
	})
}

// freeport NAME...: sets variables to ports that nobody uses.
func freePort(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		port, err := bins.Port()
		ts.Check(err)
		ts.Setenv(name, port)
	}
}

// fill FILE...: replaces ${NAME} in files by the story's variables.
func fill(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		path := ts.MkAbs(name)
		text := regexp.MustCompile(`\$\{\w+\}`).ReplaceAllStringFunc(ts.ReadFile(name), func(v string) string {
			return ts.Getenv(v[2 : len(v)-1])
		})
		ts.Check(os.WriteFile(path, []byte(text), 0o644))
	}
}

// same REGEXP FILE FILE: the first group of the expression is the same in both
// files; "! same" wants another.
func same(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: same REGEXP FILE FILE")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	var found [2]string
	for i, name := range args[1:] {
		m := re.FindStringSubmatch(ts.ReadFile(name))
		if len(m) < 2 {
			ts.Fatalf("%s: nothing matches %s", name, args[0])
		}
		found[i] = m[1]
	}
	if (found[0] == found[1]) == neg {
		ts.Fatalf("%s: %q and %q", args[0], found[0], found[1])
	}
}
