package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
)

// process is one vitrine-proxy that is proved to serve a pod. Its pidfd names
// that very process, even after its pid was given to another.
type process struct {
	pid   int
	fd    *os.File    // pidfd, in the runtime's poller
	child *os.Process // nil if it was adopted
}

// attach finds the process that serves the pod in runDir. It returns nil if none
// does.
func attach(runDir string) (*process, error) {
	pid, err := pod.Holder(runDir)
	if err != nil || pid == 0 {
		return nil, err
	}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	p := &process{pid: pid, fd: os.NewFile(uintptr(fd), "pidfd")}
	// The pid may have changed hands between the two calls. Only the process
	// that serves the pod can hold its lock, so if the holder is still called
	// so, the pidfd is the holder's.
	if again, err := pod.Holder(runDir); err != nil || again != pid {
		p.close()
		return nil, err
	}
	return p, nil
}

// spawn starts vitrine-proxy for the pod with the given bootstrap, in a session
// of its own so that it outlives the control plane and its terminal.
func spawn(binary string, b *pod.Bootstrap) (*process, error) {
	if err := os.MkdirAll(b.LogDir, 0o700); err != nil {
		return nil, fmt.Errorf("make log directory: %w", err)
	}
	log, err := os.OpenFile(pod.LogPath(b.LogDir, pod.ProxyContainer), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log of the proxy: %w", err)
	}
	defer log.Close()
	fd := -1
	//nolint:noctx // it must outlive every context of ours
	cmd := exec.Command(binary, "sidecar", "--bootstrap", filepath.Join(b.RunDir, pod.BootstrapFile))
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, PidFD: &fd}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the pod's proxy: %w", err)
	}
	if fd < 0 {
		err := errors.New("the kernel offers no pidfd: Linux 5.4 or newer is needed")
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	return &process{pid: cmd.Process.Pid, fd: os.NewFile(uintptr(fd), "pidfd"), child: cmd.Process}, nil
}

// wait blocks until the process has ended, and reaps it if it is a child. It
// returns ctx's error if ctx ends first.
func (p *process) wait(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		// The deadline lies in the past and ends the read below.
		_ = p.fd.SetReadDeadline(time.Unix(1, 0))
	})()
	raw, err := p.fd.SyscallConn()
	if err != nil {
		return fmt.Errorf("watch process %d: %w", p.pid, err)
	}
	var pollErr error
	err = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			pollErr = err
			return true
		}
		return n > 0
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := errors.Join(err, pollErr); err != nil {
		return fmt.Errorf("watch process %d: %w", p.pid, err)
	}
	if p.child != nil {
		// A pidfd becomes readable when the process is a zombie, so this does
		// not block. How it ended does not matter: the pod's final status
		// says more.
		_, _ = p.child.Wait()
		p.child = nil
	}
	return nil
}

// signal sends sig; a process that has ended is no error.
func (p *process) signal(sig syscall.Signal) error {
	raw, err := p.fd.SyscallConn()
	if err != nil {
		return fmt.Errorf("signal process %d: %w", p.pid, err)
	}
	var sendErr error
	if err := raw.Control(func(fd uintptr) { sendErr = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return fmt.Errorf("signal process %d: %w", p.pid, err)
	}
	if sendErr != nil && !errors.Is(sendErr, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.pid, sendErr)
	}
	return nil
}

// end asks the process to end and kills it if it still runs after grace.
func (p *process) end(ctx context.Context, grace time.Duration) error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	err := p.wait(limit)
	if err == nil || limit.Err() == nil {
		return err
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	// A deadline of the past is left from the first wait; a killed process ends.
	if err := p.fd.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("watch process %d: %w", p.pid, err)
	}
	return p.wait(ctx)
}

// close forgets the process, which goes on if it has not ended.
func (p *process) close() {
	p.fd.Close()
	if p.child != nil {
		_ = p.child.Release()
		p.child = nil
	}
}
