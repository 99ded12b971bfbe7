package daemon

import (
	"bytes"
	"cmp"
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
	"time"

	"golang.org/x/sys/unix"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// settleTimeout is how long a detached mesh may take until every program is
// ready before the caller is told that it goes on without waiting.
const settleTimeout = 2 * time.Minute

// StartDetached runs `vitrine up` with cfg in a session of its own and waits
// until every workload is ready or has ended, telling progress. stdin is what
// the file "-" reads. What the mesh and its programs write goes to OpenLog's
// file. If the process ends before it is ready, the error has its last words. If
// workloads keep failing, a Job has failed, or after two minutes, the error says
// which, and the mesh goes on.
func StartDetached(ctx context.Context, cfg Config, logLevel string, stdin []byte, progress io.Writer) (Status, error) {
	if err := cfg.Normalize(); err != nil {
		return Status{}, err
	}
	running, err := NewClient(cfg.RunDir).Status(ctx)
	switch stopped := (*stoppedError)(nil); {
	case errors.As(err, &stopped):
		return Status{}, err
	case err == nil:
		return Status{}, runningError(cfg.RunDir, strconv.Itoa(running.PID))
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return Status{}, fmt.Errorf("make data directory: %w (choose another with --data-dir)", err)
	}
	log, err := os.OpenFile(pod.LogPath(cfg.DataDir, ownLog), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return Status{}, fmt.Errorf("open the mesh's log: %w (choose another directory with --data-dir)", err)
	}
	defer log.Close()
	before, err := log.Stat()
	if err != nil {
		return Status{}, fmt.Errorf("open the mesh's log: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return Status{}, fmt.Errorf("find vitrine: %w", err)
	}
	cmd := exec.Command(self, cfg.args(logLevel)...) //nolint:noctx // it outlives the caller on purpose
	cmd.Stdout, cmd.Stderr = log, log
	if len(stdin) > 0 {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return Status{}, fmt.Errorf("start the mesh: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	will := lastWill{log.Name(), before.Size()}
	s, err := waitSettled(ctx, NewClient(cfg.RunDir), ended, will, progress)
	if err == nil && s.PID != cmd.Process.Pid {
		// Another one was started at the same moment, and ours gives way to it.
		select {
		case err = <-ended:
			return Status{}, will.read(err)
		case <-ctx.Done():
			return Status{}, interruptedError("")
		}
	}
	return s, err
}

// StartOrJoin makes sure that a mesh answers in cfg.RunDir. It starts one as
// StartDetached does, unless another process is doing so: several `vitrine run`
// of one script share the mesh of the first. started tells whether it is ours. What a
// killed control plane left running of files is not touched: a mesh without the files
// would end it, so that is an error.
func StartOrJoin(ctx context.Context, cfg Config, logLevel string, progress io.Writer) (started bool, err error) {
	if err := cfg.Normalize(); err != nil {
		return false, err
	}
	if n := leftOfFiles(cfg.RunDir); n > 0 && !runDirOwned(cfg.RunDir) {
		return false, fmt.Errorf("%w: the control plane is gone and has left %s of its files running: "+
			"%s with the same files takes over what runs, %s stops it",
			ErrNotRunning, Count(n, "workload"), CommandLine(cfg.RunDir, "up"), CommandLine(cfg.RunDir, "down"))
	}
	if _, err = StartDetached(ctx, cfg, logLevel, nil, progress); err == nil {
		return true, nil
	}
	limit, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	client := NewClient(cfg.RunDir)
	for runDirOwned(cfg.RunDir) {
		if _, none := client.Status(limit); none == nil {
			return false, nil
		}
		select {
		case <-tick.C:
		case <-limit.Done():
			return false, err
		}
	}
	return false, err
}

// leftOfFiles counts the pods that run and are not of `vitrine run`.
func leftOfFiles(runDir string) int {
	n := 0
	for _, b := range livePods(runDir) {
		if b.Set.Kind != mesh.KindProgram {
			n++
		}
	}
	return n
}

// ownLog is the log of a mesh in the background: vitrine.log in its data
// directory.
const ownLog = "vitrine"

// OpenLog is where a mesh in the background writes: a file in its data directory
// that is continued by the next mesh and bounded like the logs of programs. Its
// standard output and error go there from now on, for what the Go runtime says of
// a crash.
func OpenLog(dataDir, version string) (io.WriteCloser, error) {
	log, err := pod.OpenLog(dataDir, ownLog, func(f *os.File) {
		for _, fd := range []int{1, 2} {
			_ = unix.Dup3(int(f.Fd()), fd, 0) // nobody to tell
		}
	})
	if err != nil {
		return nil, fmt.Errorf("open the mesh's log: %w (choose another directory with --data-dir)", err)
	}
	fmt.Fprintf(log, "%s vitrine %s starts as process %d\n", time.Now().Format(time.RFC3339), version, os.Getpid())
	return log, nil
}

// waitSettled asks until everything is ready, the process ends, or there is no
// point in waiting.
func waitSettled(ctx context.Context, client *Client, ended <-chan error, will lastWill, progress io.Writer) (Status, error) {
	limit, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	n := newNarrator(progress, func(pod string) string {
		var b strings.Builder
		_ = client.Logs(limit, &b, LogRequest{Targets: []string{pod}, Tail: wordsOfPod}) // without a log there is nothing to show
		return lastWords(b.String())
	})
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := client.Status(limit)
		var pods []Pod
		if err == nil {
			pods, err = client.Pods(limit)
		}
		if err == nil {
			n.tell(&s, pods)
			switch {
			case s.Settled && len(s.FailedJobs) > 0:
				var lines []string
				for _, job := range s.FailedJobs {
					lines = append(lines, job.String()+" failed: its backoffLimit is used up")
				}
				return s, s.goesOn(strings.Join(lines, "\n"))
			case s.Settled:
				return s, nil
			}
			if n.hopeless(pods) {
				return s, notReady(&s, pods, "keep failing", will.path)
			}
		}
		select {
		case <-tick.C:
		case err := <-ended:
			return s, will.read(err)
		case <-limit.Done():
			switch {
			case ctx.Err() != nil:
				down := CommandLine(filepath.Dir(client.socket), "down") // s may lack what was asked for just now
				return s, interruptedError("; the mesh goes on in the background: " + down + " stops it")
			case err == nil:
				return s, notReady(&s, pods, "are not ready after "+settleTimeout.String(), will.path)
			}
			return s, fmt.Errorf("wait for the mesh: %w (its log is %s)", err, will.path)
		}
	}
}

// notReady says what keeps a mesh from settling: the pods that are not as they should
// be, and those that cannot be made; or who knows more, log being the control plane's.
func notReady(s *Status, pods []Pod, what, log string) error {
	var lines, again []string
	for i := range pods {
		switch p := &pods[i]; {
		case !p.fine():
			lines = append(lines, "  "+p.Namespace+"/"+p.Name+": "+p.why())
		case p.Restarts > 0:
			again = append(again, fmt.Sprintf("  %s/%s: %s, but it was restarted %d times", p.Namespace, p.Name, p.why(), p.Restarts))
		}
	}
	if len(lines) == 0 { // all happen to be ready at this moment
		lines = again
	}
	var text []string
	if len(lines) > 0 {
		text = append(text, fmt.Sprintf("%d of %d workloads %s:", len(lines), len(pods), what))
		text = append(text, lines...)
	}
	for i := range s.NotMade {
		text = append(text, s.NotMade[i].String())
	}
	switch {
	case len(text) > 0:
	case !s.Known:
		text = append(text, fmt.Sprintf("not every proxy has its newest configuration after %s: see %s, and the control plane's log, %s",
			settleTimeout, CommandLine(s.RunDir, "ps -o wide"), log))
	default:
		text = append(text, fmt.Sprintf("the mesh has not settled after %s, although nothing is amiss with what runs: its log may tell why, %s", settleTimeout, log))
	}
	return s.goesOn(strings.Join(text, "\n"))
}

// goesOn is the error of a mesh that runs, but not as it should.
func (s *Status) goesOn(what string) error {
	typed := func(command string) string { return CommandLine(s.RunDir, command) }
	return errors.New(what + "\nthe mesh goes on: see " + typed("ps") + " and " + typed("logs") + "; " + typed("down") + " stops it")
}

// lastWill is where a mesh in the background writes why it ended: a log, from
// the size on that it had before.
type lastWill struct {
	path string
	from int64
}

// read is the error of a mesh that ended, err being how: the cause alone if it
// names one, or else the end of its log.
func (w lastWill) read(err error) error {
	data, readErr := os.ReadFile(w.path)
	if readErr != nil {
		return fmt.Errorf("the mesh ended at once: %w; its log cannot be read: %w", cmp.Or(err, errNoCause), readErr)
	}
	if int64(len(data)) >= w.from { // otherwise the log was renamed meanwhile
		data = data[w.from:]
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	// The command line's last words begin with its name, one line for each reason.
	const mark = "vitrine: "
	last := len(lines) - 1
	for last >= 0 && !strings.HasPrefix(lines[last], mark) {
		last--
	}
	if last < 0 {
		text := strings.Join(lines[max(0, len(lines)-lastLines):], "\n  ")
		return fmt.Errorf("the mesh ended at once: %w; the end of its log, %s:\n  %s", cmp.Or(err, errNoCause), w.path, text)
	}
	first := last
	for first > 0 && strings.HasPrefix(lines[first-1], mark) {
		first--
	}
	cause := strings.TrimPrefix(strings.Join(lines[first:], "\n"), mark)
	return fmt.Errorf("the mesh did not start: %s\n(its log is %s)", strings.ReplaceAll(cause, "\n"+mark, "\n"), w.path)
}

// errNoCause is a mesh that ended with exit code 0.
var errNoCause = errors.New("nobody knows why")

// lastLines is how much of a log is shown.
const lastLines = 15

// args is the command line of `vitrine up` that means cfg.
func (c *Config) args(logLevel string) []string {
	args := []string{
		"up", "--in-background", "--run-dir", c.RunDir, "--data-dir", c.DataDir, "--proxy-binary", c.ProxyBinary, "--log-level", logLevel,
		"--prometheus-addr", c.PrometheusAddr, "--control-addr", c.ControlAddr,
		"--scrape-interval", c.ScrapeInterval.String(), "--retention-time", c.RetentionTime.String(),
		"--retention-bytes", strconv.FormatInt(c.RetentionBytes, 10), "--evict-after", c.EvictAfter.String(),
		"--query-url", c.QueryURL, "--watch=" + strconv.FormatBool(c.Watch),
	}
	for _, list := range []struct {
		flag   string
		values []string
	}{{"--remote-write", c.RemoteWrite}, {"--rules", c.RuleFiles}, {"--filename", c.Files}} {
		for _, v := range list.values {
			args = append(args, list.flag, v)
		}
	}
	return args
}
