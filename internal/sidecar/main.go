package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
)

// Exit codes of a pod's process beyond those of the program.
const (
	exitOK    = 0
	exitUsage = 2
	exitOurs  = 125 // the case or the proxy failed, as with docker run and env(1)
)

// Memory and processor bounds of a proxy, chosen so that many of them fit on a
// laptop. They are set here and not in the environment, which programs inherit.
const (
	// maxProcs keeps the scheduler's per-processor caches small. Two keep one
	// stuck or busy goroutine from holding up all others.
	maxProcs = 2
	// gcPercent trades processor time for memory: the live heap of an idle
	// proxy is 2-3 MiB, so collecting twice as often costs next to nothing.
	gcPercent = 50
)

// Main serves the pod that the bootstrap file describes until it has ended, and
// returns the exit code of the process: in the foreground the program's own.
// version is told to the admin and the metrics; complain takes what the user
// must know before there is a log.
func Main(bootstrap, version string, complain io.Writer) int {
	runtime.GOMAXPROCS(min(maxProcs, runtime.GOMAXPROCS(0)))
	debug.SetGCPercent(gcPercent)
	b, err := pod.ReadBootstrap(bootstrap)
	if err != nil {
		fmt.Fprintf(complain, "vitrine-proxy: %v\n", err)
		return exitUsage
	}
	lock, err := pod.Acquire(b.RunDir)
	if err != nil {
		fmt.Fprintf(complain, "vitrine-proxy: serve %s: %v\n", b.Workload.Key(), err)
		return exitOurs
	}
	defer lock.Release()
	if err := os.Remove(filepath.Join(b.RunDir, pod.FinalFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		fmt.Fprintf(complain, "vitrine-proxy: serve %s: %v\n", b.Workload.Key(), err)
		return exitOurs
	}
	level := new(slog.LevelVar)
	log, closeLog, err := openDirs(b, level)
	if err != nil {
		fmt.Fprintf(complain, "vitrine-proxy: serve %s: %v\n", b.Workload.Key(), err)
		early := pod.New(pod.Options{Bootstrap: b})
		early.Fail(pod.ReasonProxyError, oneLine(err))
		status, _ := early.Status()
		if err := pod.WriteFinal(b.RunDir, &status); err != nil {
			fmt.Fprintf(complain, "vitrine-proxy: %v\n", err)
		}
		return exitOurs
	}
	defer closeLog()

	s := &sidecar{
		b: b, version: version, started: time.Now(), level: level,
		log: slog.New(log.handler), accessLog: log.access,
		runtime: pod.New(pod.Options{Bootstrap: b, Env: os.Environ(), Log: slog.New(log.handler)}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	forwarded := s.handleSignals(ctx)
	err = s.serve(ctx)
	cancel()
	forwarded.Wait()
	return s.finish(err, complain)
}

// finish records how the pod ended and turns it into the process's own end.
func (s *sidecar) finish(err error, complain io.Writer) int {
	if err != nil {
		s.log.Error("pod cannot go on", "error", err)
		s.runtime.Fail(pod.ReasonProxyError, oneLine(err))
	}
	status, _ := s.runtime.Status()
	if werr := pod.WriteFinal(s.b.RunDir, &status); werr != nil {
		s.log.Error("the end of the pod is not recorded", "error", werr)
	}
	switch {
	case err != nil:
		fmt.Fprintf(complain, "vitrine-proxy: %s: %v\n", s.b.Workload.Key(), err)
		return exitOurs
	case !s.b.Foreground:
		return exitOK
	}
	last := status.Containers[0].LastExit
	switch {
	case last == nil && s.endedBy != 0: // before it was started: its default action, as nobody handled it
		dieOf(s.endedBy)
		return 128 + int(s.endedBy)
	case last == nil: // `vitrine down`, say
		return exitOurs
	case last.Reason == pod.ReasonStartError:
		fmt.Fprintf(complain, "vitrine: %s\n", last.Message)
	case last.Signal != 0:
		dieOf(syscall.Signal(last.Signal))
	}
	return last.Code
}

// oneLine is what err says, for where a line is expected: a status, a table.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// dieOf ends this process the way its program ended, so that a shell sees the
// same. It returns if the signal does not end processes.
func dieOf(sig syscall.Signal) {
	// The program's core, if it was to have one, is written already.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	// The Go runtime answers some signals (SIGABRT, SIGSEGV) with a traceback
	// and exit code 2 even without a handler of ours, so the default action is
	// set behind its back: a struct sigaction of zeros is SIG_DFL.
	var action [4]uint64
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	if unix.Kill(unix.Getpid(), sig) == nil {
		// Delivery to some thread of ours takes a moment.
		t := time.NewTimer(time.Second)
		defer t.Stop()
		<-t.C
	}
}

// logs are the outputs of the process's own log.
type logs struct {
	handler slog.Handler
	access  io.Writer // nil writes no access log
}

// openDirs makes the directories of the pod that are kept, and opens its log there.
func openDirs(b *pod.Bootstrap, level *slog.LevelVar) (l logs, done func(), err error) {
	if err := os.MkdirAll(b.StateDir, 0o700); err != nil {
		return l, nil, fmt.Errorf("make state directory: %w (is --data-dir yours to write to?)", err)
	}
	return openLog(b, level)
}

func openLog(b *pod.Bootstrap, level *slog.LevelVar) (l logs, done func(), err error) {
	if b.LogLevel != "" {
		if err := level.UnmarshalText([]byte(b.LogLevel)); err != nil {
			return l, nil, fmt.Errorf("log level: %w", err)
		}
	}
	var w io.Writer = os.Stderr
	done = func() {}
	if b.LogDir != "" {
		if err := os.MkdirAll(b.LogDir, 0o700); err != nil {
			return l, nil, fmt.Errorf("make log directory: %w", err)
		}
		file, err := pod.OpenLog(b.LogDir, pod.ProxyContainer, func(f *os.File) {
			if b.Foreground {
				return // standard output and error are the program's
			}
			// What the Go runtime and the agent write goes to the file, too.
			_ = unix.Dup3(int(f.Fd()), 1, 0)
			_ = unix.Dup3(int(f.Fd()), 2, 0)
		})
		if err != nil {
			return l, nil, err
		}
		w, done = file, func() { _ = file.Close() }
	}
	l.handler = slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})
	if b.AccessLog {
		l.access = w
	}
	return l, done, nil
}
