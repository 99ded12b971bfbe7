package meshtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// undertakerArg as first argument makes a test binary the undertaker of the
// directory that is its second.
const undertakerArg = "meshtest-undertaker"

// undertaker is a process that outlives the tests: when they have ended, and be
// it by a panic or SIGKILL, at which no cleanup runs, it ends everything that was
// started from their directory and removes that. What one run leaves is thus
// never in the way of another.
type undertaker struct {
	cmd   *exec.Cmd
	alive io.Closer // its end tells the undertaker of ours
}

func startUndertaker(root string) (*undertaker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start the undertaker: %w", err)
	}
	cmd := exec.Command(self, undertakerArg, root)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is not for it
	alive, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the undertaker: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the undertaker: %w", err)
	}
	return &undertaker{cmd, alive}, nil
}

// finish lets the undertaker do its work, and waits for it.
func (u *undertaker) finish() error {
	u.alive.Close()
	if err := u.cmd.Wait(); err != nil {
		return fmt.Errorf("clean up after the tests: %w", err)
	}
	return nil
}

// undertake waits until the tests are gone and cleans up after them.
func undertake(root string) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	_, _ = io.Copy(io.Discard, os.Stdin)
	end := time.NewTimer(time.Minute)
	defer end.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	// Of what is killed, the parent may just have started another.
	for quiet := 0; quiet < 3; {
		quiet++
		for _, p := range processesOf(root) {
			quiet = 0
			_ = p.Kill() // it may have ended by itself
		}
		select {
		case <-tick.C:
		case <-end.C:
			return errors.New("processes cannot be ended")
		}
	}
	return os.RemoveAll(root)
}

// processesOf finds the processes that run a program below root or have a path
// below it in their environment.
func processesOf(root string) []*os.Process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []*os.Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		p, err := os.FindProcess(pid) // a pidfd: what is read below is of this very process, or nothing
		if err != nil {
			continue
		}
		exe, _ := os.Readlink(filepath.Join("/proc", e.Name(), "exe"))
		environ, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		state, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if (strings.HasPrefix(exe, root+"/") || bytes.Contains(environ, []byte(root+"/"))) && !bytes.Contains(state, []byte(") Z ")) {
			found = append(found, p)
			continue
		}
		_ = p.Release()
	}
	return found
}
