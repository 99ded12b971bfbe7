package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
)

// settleTimeout is how long a detached mesh may take until every program is
// ready before the caller is told that it goes on without waiting.
const settleTimeout = 2 * time.Minute

// StartDetached runs `vitrine up` with cfg in a session of its own and waits
// until every workload is ready or has ended, telling progress. stdin is what
// the file "-" reads. The mesh's own log goes to vitrine.log in the data
// directory. If the process ends before it is ready, the error has the end of
// that log. If workloads keep failing, or after two minutes, the error says
// which, and the mesh goes on.
func StartDetached(ctx context.Context, cfg Config, logLevel string, stdin []byte, progress io.Writer) (Status, error) {
	if err := cfg.Normalize(); err != nil {
		return Status{}, err
	}
	if s, err := NewClient(cfg.RunDir).Status(ctx); err == nil {
		return Status{}, fmt.Errorf("%w in %s (pid %d): stop it with `vitrine down`, or use another --run-dir", ErrRunning, cfg.RunDir, s.PID)
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return Status{}, fmt.Errorf("make data directory: %w (choose another with --data-dir)", err)
	}
	logPath := filepath.Join(cfg.DataDir, "vitrine.log")
	log, err := freshLog(logPath)
	if err != nil {
		return Status{}, fmt.Errorf("open the mesh's log: %w (choose another directory with --data-dir)", err)
	}
	defer log.Close()
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
	return waitSettled(ctx, NewClient(cfg.RunDir), ended, logPath, progress)
}

// freshLog opens an empty log. What the runs before wrote, why the last one died
// above all, is kept as PATH.1 and PATH.2.
func freshLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > 0 {
		for i := pod.LogFiles - 1; i > 0; i-- {
			from := path
			if i > 1 {
				from += "." + strconv.Itoa(i-1)
			}
			if err := os.Rename(from, path+"."+strconv.Itoa(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// waitSettled asks until everything is ready, the process ends, or there is no
// point in waiting.
func waitSettled(ctx context.Context, client *Client, ended <-chan error, logPath string, progress io.Writer) (Status, error) {
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
			if s.Settled {
				return s, nil
			}
			if n.hopeless(pods) {
				return s, notReady(pods, "keep failing")
			}
		}
		select {
		case <-tick.C:
		case err := <-ended:
			return s, fmt.Errorf("the mesh ended at once: %w\n%s", errors.Join(err, errUnexpectedEnd), lastLines(logPath, 15))
		case <-limit.Done():
			switch {
			case ctx.Err() != nil:
				return s, errors.New("interrupted; the mesh goes on in the background: `vitrine down` stops it")
			case err == nil:
				return s, notReady(pods, "are not ready after "+settleTimeout.String())
			}
			return s, fmt.Errorf("wait for the mesh: %w (its log is %s)", err, logPath)
		}
	}
}

// notReady names the pods that are not as they should be.
func notReady(pods []Pod, what string) error {
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
	return fmt.Errorf("%d of %d workloads %s:\n%s\nthe mesh goes on: see `vitrine ps` and `vitrine logs`; `vitrine down` stops it", len(lines), len(pods), what, strings.Join(lines, "\n"))
}

var errUnexpectedEnd = errors.New("unexpected end")

// args is the command line of `vitrine up` that means cfg.
func (c *Config) args(logLevel string) []string {
	args := []string{
		"up", "--run-dir", c.RunDir, "--data-dir", c.DataDir, "--proxy-binary", c.ProxyBinary, "--log-level", logLevel,
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

// lastLines is the end of a text file, or why it cannot be read.
func lastLines(path string, n int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
