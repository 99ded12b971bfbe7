package local_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// foreground prepares `vitrine run -- args`: the command that the command line
// would become.
func (w *world) foreground(t *testing.T, args ...string) (*exec.Cmd, mesh.Workload) {
	t.Helper()
	load, bootstrap, err := w.sup.Prepare(mesh.WorkloadSet{
		Namespace: "default", Name: "tool", Labels: map[string]string{"app": "tool"}, GracePeriod: 5 * time.Second,
		Containers: []mesh.Container{{Name: "tool", Args: args, Ports: []mesh.ContainerPort{{Port: 8080}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binaries.proxy, "sidecar", "--bootstrap", bootstrap)
	cmd.Env = append(os.Environ(), programEnv+"=1", "MARK=kept")
	return cmd, load
}

func TestRunKeepsExitCodesAndStreams(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	for name, tc := range map[string]struct {
		args   []string
		stdin  string
		stdout string
		stderr string // contained
		code   int
		signal syscall.Signal
	}{
		"success":        {args: []string{binaries.self, "exit", "0"}, stdout: "leaving with 0\n"},
		"exit code":      {args: []string{binaries.self, "exit", "42"}, stdout: "leaving with 42\n", code: 42},
		"death":          {args: []string{binaries.self, "raise", "15"}, signal: syscall.SIGTERM},
		"violent death":  {args: []string{binaries.self, "raise", "9"}, signal: syscall.SIGKILL},
		"abort":          {args: []string{"sh", "-c", "ulimit -c 0; kill -ABRT $$"}, signal: syscall.SIGABRT},
		"not found":      {args: []string{"no-such-program"}, stderr: "no-such-program", code: 127},
		"not executable": {args: []string{"/etc/hosts"}, stderr: "/etc/hosts", code: 126},
		"streams":        {args: []string{"sh", "-c", "cat; echo oops >&2"}, stdin: "hello\n", stdout: "hello\n", stderr: "oops\n"},
		"surroundings": {
			args:   []string{"sh", "-c", "pwd; echo $MARK; id -u; hostname"},
			stdout: fmt.Sprintf("%s\nkept\n%d\n%s\n", dir, os.Getuid(), hostname(t)),
		},
	} {
		t.Run(name, func(t *testing.T) {
			cmd, _ := w.foreground(t, tc.args...)
			var stdout, stderr bytes.Buffer
			cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, strings.NewReader(tc.stdin), &stdout, &stderr
			err := cmd.Run()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if tc.signal != 0 && (!ws.Signaled() || ws.Signal() != tc.signal) || tc.signal == 0 && ws.ExitStatus() != tc.code {
				t.Errorf("it ended with %s, want code %d or signal %v", cmd.ProcessState, tc.code, tc.signal)
			}
			if stdout.String() != tc.stdout || !strings.Contains(stderr.String(), tc.stderr) || tc.stderr == "" && stderr.Len() > 0 {
				t.Errorf("stdout %q, stderr %q; want %q and %q", stdout.String(), stderr.String(), tc.stdout, tc.stderr)
			}
			if t.Failed() {
				return
			}
			eventually(t, func() error {
				if n := len(w.sup.Pods()); n != 0 {
					return fmt.Errorf("%d pods are left: %s", n, w.describe())
				}
				return nil
			})
		})
	}
}

func hostname(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestRunForwardsSignals(t *testing.T) {
	w := newWorld(t)
	cmd, load := w.foreground(t, binaries.self, "signals")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := pipe.(*os.File)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	expect := func(want string) {
		t.Helper()
		if err := out.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("the program says %q, want %q (%v)", lines.Text(), want, lines.Err())
		}
	}
	expect("waiting")
	eventually(t, func() error {
		for _, p := range w.sup.Pods() {
			if p.Workload.Key() == load.Key() && p.Workload.Ready && p.ProxyPID == cmd.Process.Pid {
				return nil
			}
		}
		return errors.New(w.describe())
	})
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGUSR1, syscall.SIGHUP, syscall.SIGTERM} {
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		expect("got " + s.String())
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("it ended with %v, want exit code 7", err)
	}
}

// TestRunIsEndedBeforeItsProgram: a signal that comes while there is no program yet
// ends `vitrine run` as it would have ended the program, by itself or from the
// terminal.
func TestRunIsEndedBeforeItsProgram(t *testing.T) {
	w := newWorld(t)
	for name, tc := range map[string]struct {
		signal syscall.Signal
		key    string // on a terminal
	}{
		"terminated":  {syscall.SIGTERM, ""},
		"interrupted": {syscall.SIGINT, ""},
		"hung up":     {syscall.SIGHUP, ""},
		"Ctrl-C":      {syscall.SIGINT, "\x03"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd, load := w.foreground(t, binaries.self, "exit", "0")
			path := cmd.Args[len(cmd.Args)-1]
			boot, err := pod.ReadBootstrap(path)
			if err != nil {
				t.Fatal(err)
			}
			boot.XDSSocket = filepath.Join(w.dir, "nobody.sock") // from where no configuration comes
			if _, err := boot.Write(); err != nil {
				t.Fatal(err)
			}
			var stdout bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, t.Output()
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			var screen *os.File
			if tc.key != "" {
				var tty *os.File
				screen, tty = openTerminal(t)
				defer tty.Close()
				cmd.Stdin = tty
				cmd.SysProcAttr.Setctty = true
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer time.AfterFunc(patience, func() { _ = cmd.Process.Kill() }).Stop()
			client := pod.NewClient(boot.RunDir)
			defer client.Close()
			eventually(t, func() error {
				st, err := client.Status(t.Context())
				if err == nil && !strings.Contains(st.Message, "waiting for the first configuration") {
					err = fmt.Errorf("%s %q", st.Phase, st.Message)
				}
				return err
			})
			if tc.key != "" {
				_, err = io.WriteString(screen, tc.key)
			} else {
				err = cmd.Process.Signal(tc.signal)
			}
			if err != nil {
				t.Fatal(err)
			}
			err = cmd.Wait()
			if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != tc.signal || stdout.Len() > 0 {
				t.Errorf("it ended with %v and said %q, want death by %s in silence", err, stdout.String(), tc.signal)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := w.sup.AwaitGone(ctx, []string{load.Key()}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRunLeavesIgnoredSignalsIgnored: what nohup or a script's background job
// ignores (SIGHUP and SIGINT), the program ignores too. The Go runtime keeps no
// other signal ignored.
func TestRunLeavesIgnoredSignalsIgnored(t *testing.T) {
	w := newWorld(t)
	for name, sig := range map[string]syscall.Signal{"HUP": syscall.SIGHUP, "INT": syscall.SIGINT} {
		t.Run(name, func(t *testing.T) {
			inner, _ := w.foreground(t, "sh", "-c", "echo up; cat; exit 7")
			cmd := exec.Command("sh", append([]string{"-c", `trap "" ` + name + `; exec "$@"`, "sh"}, inner.Args...)...)
			cmd.Env = inner.Env
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(stdout)
			expect := func(want string) {
				t.Helper()
				if got, err := lines.ReadString('\n'); got != want || err != nil {
					t.Fatalf("read %q, %v; want %q", got, err, want)
				}
			}
			expect("up\n")
			if err := errors.Join(cmd.Process.Signal(sig), ignores(cmd.Process.Pid, sig)); err != nil {
				t.Error(err)
			}
			if _, err := io.WriteString(stdin, "still here\n"); err != nil {
				t.Fatal(err)
			}
			expect("still here\n")
			stdin.Close()
			if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
				t.Errorf("it ended with %v, want exit status 7", err)
			}
		})
	}
}

// ignores is an error unless the process ignores sig.
func ignores(pid int, sig syscall.Signal) error {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(data), "SigIgn:\t")
	line, _, _ := strings.Cut(rest, "\n")
	var mask uint64
	if _, err := fmt.Sscanf(line, "%x", &mask); err != nil {
		return err
	}
	if mask&(1<<(sig-1)) == 0 {
		return fmt.Errorf("process %d does not ignore %v (mask %x)", pid, sig, mask)
	}
	return nil
}

func TestFilesAndDirectoriesOfAPod(t *testing.T) {
	w := newWorld(t)
	set := deployment("job", 1)
	set.Kind, set.Restart = mesh.KindJob, mesh.RestartNever
	set.Containers[0].Args = []string{"sh", "-c", "cat /etc/shop.conf /etc/who; cat /srv/cache/note"}
	set.Containers[0].Files = []mesh.File{
		{Path: "/etc/shop.conf", Data: []byte("colour=blue\n"), Mode: 0o444},
		{Path: "/etc/who", FieldPath: "metadata.namespace", Mode: 0o444},
	}
	set.Containers[0].Dirs = []mesh.Dir{{Path: "/srv/cache", Volume: "cache"}}
	first := container("first")
	first.Args = []string{"sh", "-c", "echo shared > /srv/cache/note"}
	first.Dirs, first.Ports = set.Containers[0].Dirs, nil
	set.InitContainers = []mesh.Container{first}
	w.apply(t, set)
	w.settled(t)
	w.printed(t, "colour=blue")
	w.printed(t, "defaultshared")
	for _, path := range []string{"/etc/shop.conf", "/srv/cache"} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is on the host: %v", path, err)
		}
	}
}

// TestRunOnATerminal presses Ctrl-C: the terminal sends SIGINT to the whole
// foreground process group, so the proxy must not send it again. The program
// speaks through a pipe, since a terminal's output is not to be relied on around a
// signal: the kernel flushes it, and echoes the key within it.
func TestRunOnATerminal(t *testing.T) {
	w := newWorld(t)
	cmd, _ := w.foreground(t, binaries.self, "signals")
	screen, tty := openTerminal(t)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := pipe.(*os.File)
	cmd.Stdin, cmd.Stderr = tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	lines := bufio.NewScanner(out)
	expect := func(want string) {
		t.Helper()
		if err := out.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("the program says %q, want %q (%v)\n%s", lines.Text(), want, lines.Err(), session(cmd.Process.Pid))
		}
	}
	expect("waiting")
	for range 3 {
		if _, err := io.WriteString(screen, "\x03"); err != nil {
			t.Fatal(err)
		}
		expect("got interrupt")
		// A second SIGINT would be seen before this one.
		if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		expect("got user defined signal 1")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	expect("got terminated")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("it ended with %v, want exit code 7", err)
	}
}

// session tells what each process of a session does at the moment.
func session(id int) string {
	var out strings.Builder
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err.Error()
	}
	for _, dir := range processes {
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) < 4 || fields[3] != strconv.Itoa(id) {
			continue
		}
		out.Write(stat)
		status, _ := os.ReadFile(dir + "/status")
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "Sig") || strings.HasPrefix(line, "Shd") {
				out.WriteString(line)
			}
		}
		threads, _ := filepath.Glob(dir + "/task/*")
		for _, thread := range threads {
			where, _ := os.ReadFile(thread + "/wchan")
			call, _ := os.ReadFile(thread + "/syscall")
			fmt.Fprintf(&out, "%s: %s %s", filepath.Base(thread), where, call)
		}
	}
	return out.String()
}

// openTerminal makes a pseudo-terminal. Reads of the screen take a deadline.
func openTerminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	screen = os.NewFile(uintptr(fd), "/dev/ptmx")
	t.Cleanup(func() { screen.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	// The kernel sends SIGINT first and then flushes the terminal's output, by
	// default: what a quick program wrote in between would be lost.
	mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	mode.Lflag |= unix.NOFLSH
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, mode); err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return screen, tty
}

// TestAsAnOrdinaryUser repeats the tests as a user without privileges.
func TestAsAnOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		return // everything here runs so
	}
	const uid = 1001
	dir, err := os.MkdirTemp(binaries.dir, "home") //nolint:usetesting // whose parent is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, uid); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(binaries.dir, "program"), "-test.v", "-test.timeout=5m",
		"-test.run=^(TestReplicas|TestScaleDown|TestCrash|TestProxyDeath|TestRun|TestAdoption|TestProbesOf|TestChildren|TestUsage|TestFiles)")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir, binariesEnv+"="+binaries.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("as uid %d: %v\n%s", uid, err, out)
	}
	if n := bytes.Count(out, []byte("\n--- PASS: ")); n < 11 {
		t.Errorf("only %d tests passed as uid %d:\n%s", n, uid, out)
	}
}
