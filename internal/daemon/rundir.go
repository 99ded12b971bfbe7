package daemon

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Names below the run directory.
const (
	controlSocket = "control.sock"
	xdsSocket     = "xds.sock"
	lockFile      = "lock"
	stateFile     = "mesh.json"
	podsDir       = "pods" // local.Options.RunDir
)

// ErrRunning says that the run directory already has a live control plane.
var ErrRunning = errors.New("a mesh is already running")

// errForeign says that a run directory, or what answers in it, is not the
// user's own.
var errForeign = errors.New("this is not a mesh of yours")

// checkRunDir wants a directory, not a link to one, that owner owns and
// nobody else may write to: whoever else can write there could put sockets in
// the place of ours. Of a directory that does not exist the error is
// fs.ErrNotExist.
func checkRunDir(dir string, owner int) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at run directory: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(st.Uid) != owner || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%w: run directory %s must be a directory of yours that nobody else may write to: choose another with --run-dir", errForeign, dir)
	}
	return nil
}

// runLock is the right to be the mesh of a run directory.
type runLock struct {
	dir  string
	file *os.File
}

// lockRunDir makes the run directory and takes its lock until release. The kernel
// drops the lock when the process dies, however it dies, so a lock file is never
// stale.
func lockRunDir(dir string) (*runLock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make run directory: %w (choose another with --run-dir)", err)
	}
	if err := checkRunDir(dir, os.Geteuid()); err != nil {
		return nil, err
	}
	for {
		file, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open lock: %w (does %s belong to another user? choose another with --run-dir)", err, dir)
		}
		if err := takeLock(dir, file); err != nil {
			file.Close()
			return nil, err
		}
		// A mesh that ended meanwhile has removed the file that was opened: its
		// lock is worth nothing.
		ours, err := file.Stat()
		if err != nil {
			file.Close()
			return nil, fmt.Errorf("look at lock: %w", err)
		}
		if now, err := os.Stat(file.Name()); err == nil && os.SameFile(ours, now) {
			return &runLock{dir, file}, nil
		}
		file.Close()
	}
}

// runDirOwned reports whether a control plane lives in dir, be it that it does not
// answer yet. It asks the kernel who has the lock and does not try it, which could keep
// it from one that starts. The number in the file proves nothing: the process may be
// dead and not yet waited for, and its number another's.
func runDirOwned(dir string) bool {
	file, err := os.Open(filepath.Join(dir, lockFile))
	if err != nil {
		return false
	}
	defer file.Close()
	lock := wholeFile()
	return unix.FcntlFlock(file.Fd(), unix.F_OFD_GETLK, &lock) == nil && lock.Type != unix.F_UNLCK
}

// wholeFile is a write lock of a whole file, which belongs to an open file description
// (fcntl(2), F_OFD_SETLK): the kernel drops it with the last descriptor.
func wholeFile() unix.Flock_t { return unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart} }

// CommandLine is how to type a subcommand for the mesh of runDir, in backquotes; "" is
// the user's own.
func CommandLine(runDir, command string) string {
	if runDir == "" || runDir == DefaultRunDir() {
		return "`vitrine " + command + "`"
	}
	return "`vitrine --run-dir " + runDir + " " + command + "`"
}

func runningError(dir, pid string) error {
	return fmt.Errorf("%w in %s (pid %s): stop it with %s, or use another --run-dir (one that was started with --watch applies edits of its files by itself)",
		ErrRunning, dir, pid, CommandLine(dir, "down"))
}

// takeLock locks the file and writes our process number into it.
func takeLock(dir string, file *os.File) error {
	lock := wholeFile()
	if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			pid, _ := os.ReadFile(file.Name())
			return runningError(dir, strings.TrimSpace(string(pid)))
		}
		return fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	if err := file.Truncate(0); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	if _, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	return nil
}

// release removes what nobody needs any more and gives up the lock. If programs
// go on, their directories and the state stay for the next mesh; the directory
// itself stays in any case, so that no other user can take its name.
func (l *runLock) release() {
	// Only directories that are empty can be removed, which is what is wanted.
	pods := filepath.Join(l.dir, podsDir)
	if namespaces, err := os.ReadDir(pods); err == nil {
		for _, ns := range namespaces {
			_ = os.Remove(filepath.Join(pods, ns.Name()))
		}
	}
	if err := os.Remove(pods); err == nil || errors.Is(err, fs.ErrNotExist) {
		_ = os.Remove(filepath.Join(l.dir, stateFile))
	}
	// While it is still locked: see lockRunDir.
	_ = os.Remove(l.file.Name())
	l.file.Close()
}

// removeSocket deletes a socket that a dead control plane left behind. The
// caller holds the run directory's lock, so nobody serves it.
func removeSocket(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove old socket: %w", err)
	}
	return nil
}
