package daemon

import (
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
)

// settleTimeout is how long a detached mesh may take until every program is
// ready before the caller is told that it goes on without waiting.
const settleTimeout = 2 * time.Minute

// StartDetached runs `vitrine up` with cfg in a session of its own and waits
// until every workload is ready or has ended, telling progress. The mesh's own
// log goes to vitrine.log in the data directory. If the process ends before it
// is ready, the error has the end of that log.
func StartDetached(ctx context.Context, cfg Config, logLevel string, progress io.Writer) (Status, error) {
	if err := cfg.Normalize(); err != nil {
		return Status{}, err
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return Status{}, fmt.Errorf("make data directory: %w (choose another with --data-dir)", err)
	}
	logPath := filepath.Join(cfg.DataDir, "vitrine.log")
	log, err := os.OpenFile(logPath, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return Status{}, fmt.Errorf("open the mesh's log: %w", err)
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return Status{}, fmt.Errorf("find vitrine: %w", err)
	}
	cmd := exec.Command(self, cfg.args(logLevel)...) //nolint:noctx // it outlives the caller on purpose
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return Status{}, fmt.Errorf("start the mesh: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return waitSettled(ctx, NewClient(cfg.RunDir), ended, logPath, progress)
}

// waitSettled asks until everything is ready, the process ends, or time is up.
func waitSettled(ctx context.Context, client *Client, ended <-chan error, logPath string, progress io.Writer) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	shown := -1
	for {
		s, err := client.Status(ctx)
		if err == nil && s.Ready != shown && s.Workloads > 0 {
			fmt.Fprintf(progress, "ready %d/%d\n", s.Ready, s.Workloads)
			shown = s.Ready
		}
		if err == nil && s.Settled {
			return s, nil
		}
		select {
		case <-tick.C:
		case err := <-ended:
			return s, fmt.Errorf("the mesh ended at once: %w\n%s", errors.Join(err, errUnexpectedEnd), lastLines(logPath, 15))
		case <-ctx.Done():
			if err == nil {
				return s, fmt.Errorf("not everything is ready after %s (the mesh goes on; see `vitrine ps` and `vitrine logs`)", settleTimeout)
			}
			return s, fmt.Errorf("wait for the mesh: %w (its log is %s)", ctx.Err(), logPath)
		}
	}
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
	for flag, values := range map[string][]string{"--remote-write": c.RemoteWrite, "--rules": c.RuleFiles, "--filename": c.Files} {
		for _, v := range values {
			args = append(args, flag, v)
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
