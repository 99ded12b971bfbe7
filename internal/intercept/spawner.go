package intercept

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// spawner is the thread of P1 that programs are started from. What they must
// inherit (no ambient capabilities, a smaller bounding set, the host name) are
// attributes of a thread, and the other threads of P1 must keep theirs.
type spawner struct {
	jobs chan func()
}

// newSpawner starts the thread. It is never stopped: it ends with P1.
func newSpawner(hostname string) (s *spawner, notes []string) {
	s = &spawner{jobs: make(chan func())}
	ready := make(chan []string)
	go func() {
		runtime.LockOSThread()
		ready <- s.prepare(hostname)
		for job := range s.jobs {
			job()
		}
	}()
	return s, <-ready
}

func (s *spawner) prepare(hostname string) (notes []string) {
	if hostname != "" {
		err := unix.Unshare(unix.CLONE_NEWUTS)
		if err == nil {
			err = unix.Sethostname([]byte(hostname))
		}
		if err != nil {
			notes = append(notes, "programs see the host's name: "+err.Error())
		}
	}
	if err := boundThread(); err != nil {
		notes = append(notes, "programs keep capabilities: "+err.Error())
	}
	return notes
}

// start runs a program with fds as its stdin, stdout and stderr. pidfd is owned
// by the caller.
func (s *spawner) start(req *programRequest, fds []int) (pid, pidfd int, err error) {
	if len(fds) != 3 || len(req.Args) == 0 || len(req.Dir) != 1 {
		return 0, -1, errors.New("malformed request")
	}
	done := make(chan struct{})
	s.jobs <- func() {
		defer close(done)
		pid, pidfd, err = forkExec(req, fds)
	}
	<-done
	return pid, pidfd, err
}

func forkExec(req *programRequest, fds []int) (pid, pidfd int, err error) {
	dir := req.Dir[0]
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return 0, -1, &StartError{Code: 126, Errno: unix.ENOTDIR, Reason: "working directory " + dir + " does not exist"}
	}
	path, err := lookPath(req.Args[0], req.Env, dir)
	if err != nil {
		return 0, -1, err
	}
	files := make([]uintptr, len(fds))
	for i, fd := range fds {
		files[i] = uintptr(fd)
	}
	pidfd = -1
	pid, err = syscall.ForkExec(path, req.Args, &syscall.ProcAttr{
		Dir: dir, Env: req.Env, Files: files,
		Sys: &syscall.SysProcAttr{Setsid: req.NewSession, PidFD: &pidfd},
	})
	if err != nil {
		return 0, -1, startError(path, err)
	}
	if pidfd < 0 {
		if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			_ = unix.Kill(pid, unix.SIGKILL)
			return 0, -1, fmt.Errorf("pidfd_open: %w (Linux 5.4 or newer is needed)", err)
		}
	}
	return pid, pidfd, nil
}

func startError(path string, err error) error {
	code := 126
	if errors.Is(err, fs.ErrNotExist) {
		code = 127
	}
	se := &StartError{Code: code, Reason: path + ": " + err.Error()}
	errors.As(err, &se.Errno)
	return se
}

// lookPath finds a program as execvp(3) does, with the program's own PATH.
func lookPath(name string, env []string, dir string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			return filepath.Join(dir, name), nil
		}
		return name, nil
	}
	path := "/usr/local/bin:/bin:/usr/bin"
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	var denied error
	for _, d := range filepath.SplitList(path) {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		file := filepath.Join(d, name)
		info, err := os.Stat(file)
		if err != nil || info.IsDir() {
			continue
		}
		if err := unix.Access(file, unix.X_OK); err != nil {
			denied = startError(file, err)
			continue
		}
		return file, nil
	}
	if denied != nil {
		return "", denied
	}
	return "", &StartError{Code: 127, Errno: unix.ENOENT, Reason: "command not found"}
}
