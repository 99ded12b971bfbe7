package intercept

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Program is a command to run in the case.
type Program struct {
	Args []string // Args[0] is looked up in the PATH of Env
	Env  []string // complete; nil means this process's
	Dir  string   // "" means this process's
	// Stdin, Stdout and Stderr become the program's descriptors themselves; nil
	// means /dev/null. They stay the caller's.
	Stdin, Stdout, Stderr *os.File
	// NewSession makes the program the leader of a session of its own, away from
	// the terminal; when it ends, the rest of its process group is killed.
	// Otherwise it stays in the caller's process group.
	NewSession bool
}

// Exit is how a program ended.
type Exit struct {
	Code   int            // exit code if Signal is 0
	Signal syscall.Signal // the signal that ended it, or 0
}

// Status is the exit code as a shell gives it: 128+n for signal n.
func (e Exit) Status() int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}
	return e.Code
}

// String describes the exit for people.
func (e Exit) String() string {
	if e.Signal != 0 {
		return "signal: " + e.Signal.String()
	}
	return "exit code " + strconv.Itoa(e.Code)
}

// Process is a program that was started in the case.
type Process struct {
	pid   int // on the host
	pidfd int
	done  chan struct{}
	// Written before done is closed.
	exit Exit
	cpu  time.Duration

	mu sync.Mutex // guards the life of pidfd
}

// Start runs a program in the case. The error is a *StartError if the program
// could not be executed.
func (c *Case) Start(p Program) (*Process, error) {
	if len(p.Args) == 0 {
		return nil, &StartError{Code: 127, Reason: "no command given"}
	}
	dir, env := p.Dir, p.Env
	if dir == "" {
		wd, err := os.Getwd()
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", p.Args[0], err)
		}
		dir = wd
	}
	if env == nil {
		env = os.Environ()
	}
	body, err := json.Marshal(programRequest{Args: p.Args, Env: env, Dir: cStrings{dir}, NewSession: p.NewSession})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Args[0], err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Args[0], err)
	}
	defer null.Close()
	var fds []int
	for _, f := range []*os.File{p.Stdin, p.Stdout, p.Stderr} {
		if f == nil {
			f = null
		}
		fds = append(fds, int(f.Fd()))
	}
	type result struct {
		proc *Process
		err  error
	}
	done := make(chan result, 1)
	// The process is entered on the reading goroutine, before the report of its
	// end can be read.
	err = c.request(&packet{kind: kindStart, body: body, fds: fds}, func(answer packet, err error) {
		if err != nil {
			done <- result{err: fmt.Errorf("start %s: %w", p.Args[0], err)}
			return
		}
		proc, err := c.started(p.Args[0], &answer)
		done <- result{proc, err}
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Args[0], err)
	}
	r := <-done
	return r.proc, r.err
}

// started enters a new process.
func (c *Case) started(name string, answer *packet) (*Process, error) {
	if answer.b != 0 {
		return nil, &StartError{Program: name, Code: int(answer.b), Reason: string(answer.body), Errno: syscall.Errno(answer.a)}
	}
	pidfd, err := answer.takeFD(0)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	proc := &Process{pid: pidOf(pidfd), pidfd: pidfd, done: make(chan struct{})}
	c.mu.Lock()
	c.programs[answer.a] = proc
	c.mu.Unlock()
	return proc, nil
}

// exited reports the end of a child of P1; most are orphans that nobody knows.
func (c *Case) exited(p *packet) {
	c.mu.Lock()
	proc := c.programs[p.a]
	delete(c.programs, p.a)
	c.mu.Unlock()
	if proc == nil {
		return
	}
	status := syscall.WaitStatus(p.b)
	e := Exit{Code: status.ExitStatus()}
	if status.Signaled() {
		e = Exit{Signal: status.Signal()}
	}
	if len(p.body) == 8 {
		proc.cpu = time.Duration(binary.LittleEndian.Uint64(p.body))
	}
	proc.finish(e)
}

func (p *Process) finish(e Exit) {
	p.exit = e
	p.mu.Lock()
	_ = unix.Close(p.pidfd)
	p.pidfd = -1
	p.mu.Unlock()
	close(p.done)
}

// Wait waits for the program's end. A program that died with the whole case
// counts as killed.
func (p *Process) Wait() Exit {
	<-p.done
	return p.exit
}

// CPUTime is what the program used of the processors, with those of its children
// that it had waited for; 0 before its end, and of a program that died with the whole
// case.
func (p *Process) CPUTime() time.Duration {
	select {
	case <-p.done:
		return p.cpu
	default:
		return 0
	}
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// PID is the program's process id on the host; 0 if it is not known.
func (p *Process) PID() int { return p.pid }

// Signal sends sig to the program alone. After its end it returns
// os.ErrProcessDone.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd < 0 {
		return os.ErrProcessDone
	}
	err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	if err != nil {
		return fmt.Errorf("signal %v to process %d: %w", sig, p.pid, err)
	}
	return nil
}

// pidOf finds the process of a pidfd, in our own process-id namespace.
func pidOf(pidfd int) int {
	data, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(pidfd))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "Pid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(v))
			if err != nil || pid < 0 {
				return 0
			}
			return pid
		}
	}
	return 0
}

// maxExecOutput bounds the output that Exec keeps, as the kubelet does.
const maxExecOutput = 10 << 10

// execGrace is how long Exec waits for output after the command has ended; only
// a background process that keeps the pipe open uses it up.
const execGrace = 100 * time.Millisecond

// Exec runs a command in the case to its end and returns its output, both
// streams together, cut at 10 KiB. When ctx is done, the command is killed and
// the error is ctx's. A command that cannot be executed gives code 126 or 127 and
// the reason as output, as in a shell.
func (c *Case) Exec(ctx context.Context, args, env []string, dir string) (Exit, []byte, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return Exit{}, nil, fmt.Errorf("exec: %w", err)
	}
	defer r.Close()
	proc, err := c.Start(Program{Args: args, Env: env, Dir: dir, Stdout: w, Stderr: w, NewSession: true})
	w.Close()
	if se := (*StartError)(nil); errors.As(err, &se) {
		return Exit{Code: se.Code}, []byte(se.Error()), nil
	}
	if err != nil {
		return Exit{}, nil, err
	}
	var out bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.CopyN(&out, r, maxExecOutput)
		_, _ = io.Copy(io.Discard, r)
	}()
	select {
	case <-proc.Done():
	case <-ctx.Done():
		_ = proc.Signal(syscall.SIGKILL)
		<-proc.Done()
		err = fmt.Errorf("exec %s: %w", args[0], context.Cause(ctx))
	}
	_ = r.SetReadDeadline(time.Now().Add(execGrace))
	<-read
	return proc.Wait(), out.Bytes(), err
}
