package meshtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
)

// askFor bounds one question to a mesh, whose answer is there at once.
const askFor = 30 * time.Second

// User is an ordinary user id that tests running as root use; it needs no entry
// in the machine's list of users.
const User = 1001

// Options says what mesh to start.
type Options struct {
	YAML   string        // manifest, written to mesh.yaml in Dir; or
	Files  []string      // manifest files; or
	Demo   string        // directory of the files of `vitrine demo`
	Rules  []string      // Prometheus rule files
	Scrape time.Duration // default 500 ms
	Watch  bool          // applies changes of the files
	For    time.Duration // the Demo ends by itself after so long; 0 is never
	// AsUser runs everything as the ordinary user User if the test is root.
	AsUser bool
}

// Mesh is a mesh whose control plane the test starts and ends.
type Mesh struct {
	Dir        string // of this mesh; the mesh's user may write it
	RunDir     string // its --run-dir
	Client     *daemon.Client
	Prometheus string // base URL of the query API; "" before WaitSettled
	Control    string // base URL of the control plane's metrics

	t          testing.TB
	bin        *Binaries
	args       []string  // of vitrine
	up         *exec.Cmd // the control plane; nil while there is none
	log        *logBuffer
	credential *syscall.Credential
	stopped    bool

	mu sync.Mutex
	// namespaces are those of our programs, as /proc/PID/ns/net names them. They
	// are kept open until the end, or their numbers would go to others. Guarded by
	// mu.
	namespaces map[string]*os.File
}

// Start starts a mesh and waits until every program is ready. At the end of the
// test it is stopped, and everything it made must be gone.
func Start(tb testing.TB, b *Binaries, o Options) *Mesh {
	tb.Helper()
	m := Prepare(tb, b, o)
	m.Up()
	m.WaitSettled()
	return m
}

// Prepare makes the mesh that Start starts, without a control plane: for tests
// that start it and kill it.
func Prepare(tb testing.TB, b *Binaries, o Options) *Mesh {
	tb.Helper()
	dir := b.Dir(tb)
	m := &Mesh{
		Dir: dir, RunDir: filepath.Join(dir, "run"), t: tb, bin: b, log: &logBuffer{}, namespaces: map[string]*os.File{},
	}
	m.Client = daemon.NewClient(m.RunDir)
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("the mesh's output:\n%s\nwarnings of its proxies:\n%s", m.log, m.warnings())
		}
	})
	if o.AsUser && os.Geteuid() == 0 {
		m.credential = &syscall.Credential{Uid: User, Gid: User}
		m.Client = daemon.NewClientOf(m.RunDir, User)
		if err := os.Chown(dir, User, User); err != nil {
			tb.Fatal(err)
		}
	}
	if o.YAML != "" {
		o.Files = append(o.Files, m.WriteFile("mesh.yaml", o.YAML))
	}
	m.args = []string{"up"}
	if o.Demo != "" {
		m.args = []string{"demo", "--dir", o.Demo, "--duration", o.For.String()}
	}
	m.args = append(m.args,
		"--run-dir", m.RunDir, "--data-dir", filepath.Join(dir, "data"), "--prometheus-addr", "127.0.0.1:0",
		"--control-addr", "127.0.0.1:0", "--scrape-interval", max(o.Scrape, 500*time.Millisecond).String(),
	)
	if o.Watch {
		m.args = append(m.args, "--watch")
	}
	for _, f := range o.Files {
		m.args = append(m.args, "-f", f)
	}
	for _, f := range o.Rules {
		m.args = append(m.args, "--rules", f)
	}
	tb.Cleanup(m.Stop)
	return m
}

// Up starts the control plane, and waits for nothing. After Kill, the new one
// takes over what still runs.
func (m *Mesh) Up() {
	m.t.Helper()
	up := m.command(context.Background(), m.args...)
	up.Stdout, up.Stderr = m.log, m.log
	if err := up.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.up = up
}

// Kill ends the control plane by SIGKILL; programs and proxies go on. A test that
// ends without another Up leaves them to Main, which ends them.
func (m *Mesh) Kill() {
	m.t.Helper()
	if err := m.up.Process.Kill(); err != nil {
		m.t.Fatal(err)
	}
	_ = m.up.Wait() // it was killed
	m.up, m.Prometheus, m.Control = nil, "", ""
}

// WriteFile writes a file that the mesh's user may read and returns its path.
func (m *Mesh) WriteFile(name, content string) string {
	m.t.Helper()
	path := filepath.Join(m.Dir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// MakeDir makes a directory that the programs of the mesh may write to.
func (m *Mesh) MakeDir(name string) string {
	m.t.Helper()
	return MakeDir(m.t, filepath.Join(m.Dir, name))
}

// MakeDir makes a directory that everybody may write to.
func MakeDir(tb testing.TB, path string) string {
	tb.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(path, 0o777); err != nil {
		tb.Fatal(err)
	}
	return path
}

// command is one of vitrine as the mesh's user. It is killed when ctx ends.
func (m *Mesh) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, m.bin.Path("vitrine"), args...)
	cmd.Dir = m.Dir
	cmd.WaitDelay = 10 * time.Second // what it started may have its output still
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: m.credential, Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), m.mark())
	if m.credential != nil {
		cmd.Env = append(cmd.Env, "HOME="+m.Dir, "XDG_RUNTIME_DIR=", "XDG_DATA_HOME=")
	}
	return cmd
}

// CLI runs `vitrine ARGS` for this mesh and returns what it prints.
func (m *Mesh) CLI(args ...string) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeoutCause(m.t.Context(), Patience, fmt.Errorf("it did not end within %s", Patience))
	defer cancel()
	cmd := m.command(ctx, append([]string{"--run-dir", m.RunDir}, args...)...)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		err = errors.Join(err, context.Cause(ctx))
		m.t.Fatalf("vitrine %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errOut.String())
	}
	return out.String()
}

// WaitSettled waits until every program is ready, or has ended for good, and
// every proxy has its configuration.
func (m *Mesh) WaitSettled() {
	m.t.Helper()
	Eventually(m.t, func() error {
		ctx, cancel := context.WithTimeout(m.t.Context(), askFor)
		defer cancel()
		s, err := m.Client.Status(ctx)
		if err != nil {
			return err
		}
		m.Prometheus, m.Control = s.Prometheus, s.Control
		if !s.Settled {
			return fmt.Errorf("%d of %d workloads are ready; known to every proxy: %t; not made: %v; failed Jobs: %v",
				s.Ready, s.Workloads, s.Known, s.NotMade, s.FailedJobs)
		}
		pods, err := m.ListPods()
		if err != nil {
			return err
		}
		for i := range pods {
			if p := &pods[i]; !p.Proxy.Synced {
				return fmt.Errorf("the proxy of %s has no configuration yet", p.Name)
			}
		}
		return nil
	})
}

// Pods lists the workloads that run.
func (m *Mesh) Pods() []daemon.Pod {
	m.t.Helper()
	pods, err := m.ListPods()
	if err != nil {
		m.t.Fatal(err)
	}
	return pods
}

// ListPods is Pods for when there may be no control plane.
func (m *Mesh) ListPods() ([]daemon.Pod, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askFor) // cleanup asks too
	defer cancel()
	pods, err := m.Client.Pods(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the pods: %w", err)
	}
	m.remember(pods)
	return pods, nil
}

// remember notes the network namespaces of the pods' programs.
func (m *Mesh) remember(pods []daemon.Pod) {
	own, _ := os.Readlink("/proc/self/ns/net")
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range pods {
		for _, pid := range pods[i].PIDs {
			f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
			if err != nil {
				continue // it has ended
			}
			ns, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
			if err != nil || ns == own || m.namespaces[ns] != nil {
				f.Close()
				continue
			}
			m.namespaces[ns] = f
		}
	}
}

// Stop ends the mesh as Ctrl-C does and wants nothing to be left. It may be
// called twice.
func (m *Mesh) Stop() {
	m.t.Helper()
	if m.stopped {
		return
	}
	m.stopped = true
	defer func() {
		for _, f := range m.namespaces {
			f.Close()
		}
	}()
	if m.up == nil {
		return
	}
	if m.Prometheus != "" {
		if _, err := m.ListPods(); err != nil {
			m.t.Error(err)
		}
	}
	// The process is ours and not yet waited for, so its id is still its own.
	if err := m.up.Process.Signal(syscall.SIGTERM); err != nil {
		m.t.Errorf("stop the mesh: %v", err)
	}
	m.WaitEnd()
}

// WaitEnd waits until the control plane has ended, and wants it to succeed and
// nothing to be left.
func (m *Mesh) WaitEnd() {
	m.t.Helper()
	kill := time.AfterFunc(Patience, func() { _ = m.up.Process.Kill() })
	err := m.up.Wait()
	if !kill.Stop() {
		err = errors.Join(err, fmt.Errorf("it did not end within %s", Patience))
	}
	if err != nil {
		m.t.Errorf("the mesh ended with %v", err)
	}
	m.up = nil
	m.wantNothingLeft()
}

// Output is what the control plane has printed.
func (m *Mesh) Output() string { return m.log.String() }

// WaitOutput waits until the control plane has printed text.
func (m *Mesh) WaitOutput(text string) {
	m.t.Helper()
	Eventually(m.t, func() error {
		if out := m.Output(); !strings.Contains(out, text) {
			return fmt.Errorf("%q is not in the output:\n%s", text, out)
		}
		return nil
	})
}

// warnings are the lines of warning and error in all logs of the mesh.
func (m *Mesh) warnings() string {
	var out strings.Builder
	_ = filepath.WalkDir(m.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.Contains(filepath.Base(path), "log") {
			return nil //nolint:nilerr // what cannot be read is not shown
		}
		data, _ := os.ReadFile(path)
		for line := range strings.Lines(string(data)) {
			if out.Len() < keptLog && (strings.Contains(line, "WARN") || strings.Contains(line, "ERROR")) {
				fmt.Fprintf(&out, "%s: %s", strings.TrimPrefix(path, m.Dir), line)
			}
		}
		return nil
	})
	return out.String()
}

// logBuffer keeps the end of what a mesh prints.
type logBuffer struct {
	mu   sync.Mutex
	data []byte
}

const keptLog = 32 << 10

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data = append(l.data, p...)
	if n := len(l.data) - keptLog; n > 0 {
		l.data = append(l.data[:0], l.data[n:]...)
	}
	return len(p), nil
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.data)
}
