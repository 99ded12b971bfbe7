package intercept_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/intercept"
)

func TestExitIsExact(t *testing.T) {
	c := startCase(t, config(t))
	for script, want := range map[string]intercept.Exit{
		"exit 0":                      {},
		"exit 42":                     {Code: 42},
		"exit 255":                    {Code: 255},
		"kill -TERM $$":               {Signal: syscall.SIGTERM},
		"kill -KILL $$":               {Signal: syscall.SIGKILL},
		"ulimit -c 0; kill -SEGV $$":  {Signal: syscall.SIGSEGV},
		"trap 'exit 9' TERM; kill $$": {Code: 9},
	} {
		p := start(t, c, intercept.Program{Args: []string{"sh", "-c", script}, NewSession: true})
		if _, got := p.result(t); got != want {
			t.Errorf("%s: %v, want %v", script, got, want)
		}
	}
}

func TestSignals(t *testing.T) {
	c := startCase(t, config(t))
	p := role(t, c, "trap").ready(t)
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, exit := p.result(t); exit != (intercept.Exit{Code: 7}) {
		t.Errorf("trapped SIGTERM: %v, want code 7", exit)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after the end: %v, want ErrProcessDone", err)
	}
	if got := p.Wait().Status(); got != 7 {
		t.Errorf("status %d, want 7", got)
	}
	if got := (intercept.Exit{Signal: syscall.SIGTERM}).Status(); got != 143 {
		t.Errorf("status of SIGTERM %d, want 143", got)
	}
}

func TestStartErrors(t *testing.T) {
	c := startCase(t, config(t))
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		program string
		env     []string
		dir     string
		code    int
		is      error
	}{
		{program: "no-such-program", code: 127, is: os.ErrNotExist},
		{program: "/no/such/program", code: 127, is: os.ErrNotExist},
		{program: "./missing", dir: dir, code: 127, is: os.ErrNotExist},
		{program: plain, code: 126, is: os.ErrPermission},
		{program: "plain", env: []string{"PATH=" + dir}, code: 126, is: os.ErrPermission},
		{program: dir, code: 126, is: os.ErrPermission},
		{program: "sh", dir: "/no/such/dir", code: 126, is: syscall.ENOTDIR},
	} {
		_, err := c.Start(intercept.Program{Args: []string{tc.program}, Env: tc.env, Dir: tc.dir, NewSession: true})
		var se *intercept.StartError
		if !errors.As(err, &se) || se.Code != tc.code || !errors.Is(err, tc.is) {
			t.Errorf("%s: %v, want code %d and %v", tc.program, err, tc.code, tc.is)
		}
	}
	if _, err := c.Start(intercept.Program{Args: []string{"a\x00b"}}); err == nil {
		t.Error("a NUL byte in the arguments was accepted")
	}
}

// TestProgramSeesItsOwnWorld: what an unmodified program looks at is as outside.
func TestProgramSeesItsOwnWorld(t *testing.T) {
	c := startCase(t, config(t))
	dir := t.TempDir()
	script := `pwd; id -u; id -g; echo "$ODD"; umask; hostname; ulimit -n; touch made; stat -c %u made; readlink /proc/self/ns/user`
	odd := "a\xff\x01b" // not UTF-8
	env := []string{"PATH=" + os.Getenv("PATH"), "ODD=" + odd}
	args := []string{"sh", "-c", script}

	outside := exec.CommandContext(t.Context(), args[0], args[1:]...)
	outside.Dir, outside.Env = dir, env
	want, err := outside.Output()
	if err != nil {
		t.Fatal(err)
	}
	wantLines := lines(string(want))
	wantLines[5] = "web-0"

	p := start(t, c, intercept.Program{Args: args, Env: env, Dir: dir, NewSession: true})
	out, exit := p.result(t)
	if exit != (intercept.Exit{}) {
		t.Fatalf("%v: %s", exit, p.stderr())
	}
	got := lines(out)
	if os.Geteuid() != 0 { // the only visible difference
		got[8], wantLines[8] = "", ""
	}
	if diff := cmp.Diff(wantLines, got); diff != "" {
		t.Errorf("(-outside +inside)\n%s", diff)
	}
}

func TestStandardStreams(t *testing.T) {
	c := startCase(t, config(t))
	p := role(t, c, "lines")
	fmt.Fprintln(p.stdin, "one")
	if got := p.readLine(t); got != "got one" {
		t.Errorf("got %q", got)
	}
	fmt.Fprint(p.stdin, "two")
	p.stdin.Close()
	if out, exit := p.result(t); out != "got two\n" || exit != (intercept.Exit{}) {
		t.Errorf("got %q, %v", out, exit)
	}
	if p.PID() == 0 {
		t.Error("no process id")
	}
}

// TestNoCapabilities: nothing of what the agent may do comes to programs.
func TestNoCapabilities(t *testing.T) {
	c := startCase(t, config(t))
	p := start(t, c, intercept.Program{
		Args: []string{"sh", "-c", "grep ^Cap /proc/self/status; ls /proc/self/fd | wc -l"}, NewSession: true,
	})
	out, _ := p.result(t)
	const docker = "00000000a80425fb" // the set that Docker gives by default
	const none = "0000000000000000"
	effective := none
	if os.Geteuid() == 0 {
		effective = docker
	}
	want := []string{
		"CapInh:\t" + none, "CapPrm:\t" + effective, "CapEff:\t" + effective, "CapBnd:\t" + docker, "CapAmb:\t" + none,
		"4", // stdin, stdout, stderr, and the directory that ls reads
	}
	got := lines(out)
	got[len(got)-1] = strings.TrimSpace(got[len(got)-1])
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if out, exit := role(t, c, "forbidden").result(t); out != "" || exit != (intercept.Exit{}) {
		t.Errorf("%v; not forbidden:\n%s", exit, out)
	}
}

// TestProcessGroups: a session of its own or the caller's group.
func TestProcessGroups(t *testing.T) {
	c := startCase(t, config(t))
	own := role(t, c, "trap").ready(t)
	if pgid, err := syscall.Getpgid(own.PID()); err != nil || pgid != own.PID() {
		t.Errorf("group of a program with a session: %d, %v, want %d", pgid, err, own.PID())
	}
	exe, _ := os.Executable()
	shared := start(t, c, intercept.Program{Args: []string{exe, "role", "trap"}}).ready(t)
	if pgid, err := syscall.Getpgid(shared.PID()); err != nil || pgid != syscall.Getpgrp() {
		t.Errorf("group of a program without: %d, %v, want %d", pgid, err, syscall.Getpgrp())
	}
	for _, p := range []*program{own, shared} {
		if err := p.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if _, exit := p.result(t); exit != (intercept.Exit{Code: 7}) {
			t.Errorf("exit %v, want code 7", exit)
		}
	}
}

// TestSeveralPrograms: programs share the case and can be started again in it.
func TestSeveralPrograms(t *testing.T) {
	c := startCase(t, config(t))
	for range 3 {
		p := role(t, c, "serve", "tcp", "127.0.0.1:8080").ready(t)
		got := run(t, c, "get", "tcp", "127.0.0.1:8080")
		if !strings.HasPrefix(got, "hello 127.0.0.1:") {
			t.Errorf("got %q", got)
		}
		p.stdin.Close()
		p.result(t)
	}
}

// TestGroupEndsWithItsLeader: what a program leaves behind would hold the port
// against its successor.
func TestGroupEndsWithItsLeader(t *testing.T) {
	c := startCase(t, config(t))
	p := start(t, c, intercept.Program{Args: []string{"sh", "-c", "sleep 1000 & echo $!; exit 3"}, NewSession: true})
	out, exit := p.result(t) // ends only when sleep has closed the pipe
	if exit != (intercept.Exit{Code: 3}) || out == "" {
		t.Errorf("got %q, %v", out, exit)
	}
}

func TestExec(t *testing.T) {
	c := startCase(t, config(t))
	exit, out, err := c.Exec(testContext(t), []string{"sh", "-c", "echo out; echo err >&2; exit 3"}, nil, "/")
	if err != nil || exit != (intercept.Exit{Code: 3}) || string(out) != "out\nerr\n" {
		t.Errorf("got %v, %q, %v", exit, out, err)
	}
	exit, out, err = c.Exec(testContext(t), []string{"head", "-c", "100000", "/dev/zero"}, nil, "/")
	if err != nil || exit != (intercept.Exit{}) || len(out) != 10240 {
		t.Errorf("long output: %v, %d bytes, %v, want 10240", exit, len(out), err)
	}
	exit, out, err = c.Exec(testContext(t), []string{"nothing-here"}, nil, "/")
	if err != nil || exit != (intercept.Exit{Code: 127}) || string(out) != "start nothing-here: command not found" {
		t.Errorf("missing command: %v, %q, %v", exit, out, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	exit, _, err = c.Exec(ctx, []string{"sleep", "1000"}, nil, "/")
	if !errors.Is(err, context.DeadlineExceeded) || exit != (intercept.Exit{Signal: syscall.SIGKILL}) {
		t.Errorf("endless command: %v, %v", exit, err)
	}
}

// TestLargeArguments need more room than one packet.
func TestLargeArguments(t *testing.T) {
	c := startCase(t, config(t))
	big := strings.Repeat("x", 120_000) // execve(2) allows 128 KiB for one
	exit, out, err := c.Exec(testContext(t), []string{"sh", "-c", "echo ${#A} ${#B} ${#C}"},
		[]string{"A=" + big, "B=" + big, "C=" + big}, "/")
	if err != nil || exit != (intercept.Exit{}) || string(out) != "120000 120000 120000\n" {
		t.Errorf("got %v, %q, %v", exit, out, err)
	}
}
