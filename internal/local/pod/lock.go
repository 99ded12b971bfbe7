package pod

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another process serves the pod.
var ErrLocked = errors.New("another process serves this pod")

// Lock is held by the process of a pod for its whole life. It is a POSIX record
// lock: the kernel releases it when the process ends, however it ends, and
// tells everyone who may open the file which process holds it. So a pid read
// from Holder is proved to be a pod's process, which a pid file cannot prove.
type Lock struct{ file *os.File }

// Acquire takes the lock of the pod with the given run directory, or returns
// ErrLocked. The process must not open the lock file again: closing any
// descriptor of it would release the lock.
func Acquire(runDir string) (*Lock, error) {
	f, err := os.OpenFile(filepath.Join(runDir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lk); err != nil {
		f.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return &Lock{file: f}, nil
}

// Release gives the lock back. The end of the process does the same.
func (l *Lock) Release() { l.file.Close() }

// Holder returns the pid of the process that serves the pod with the given run
// directory; 0 means that none does.
func Holder(runDir string) (int, error) {
	f, err := os.Open(filepath.Join(runDir, lockFile))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("open lock: %w", err)
	}
	defer f.Close()
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lk); err != nil {
		return 0, fmt.Errorf("ask who holds %s: %w", f.Name(), err)
	}
	if lk.Type == unix.F_UNLCK {
		return 0, nil
	}
	return int(lk.Pid), nil
}
