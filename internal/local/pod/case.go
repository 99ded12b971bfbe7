package pod

import (
	"context"
	"net"
	"os"
	"syscall"
	"time"
)

// Case is the place where the programs of a pod run. Its methods may be called
// by any number of goroutines.
type Case interface {
	// Start runs a program. An error means that it did not start; it wraps
	// os.ErrNotExist or os.ErrPermission when that is the cause.
	Start(p Program) (Process, error)
	// Exec runs a command inside the case to its end and returns nil if it
	// exits with 0. The end of ctx kills it.
	Exec(ctx context.Context, p Program) error
	// Dial connects to a port of the programs' localhost.
	Dial(ctx context.Context, port uint16) (net.Conn, error)
}

// Program is what Case.Start runs. Nil files stand for /dev/null. The files
// stay the caller's.
type Program struct {
	Args       []string
	Env        []string
	Dir        string
	Stdin      *os.File
	Stdout     *os.File
	Stderr     *os.File
	NewSession bool // no controlling terminal
}

// Process is one running program.
type Process interface {
	// Signal sends a signal to the program; one that has ended is not an error.
	Signal(sig syscall.Signal) error
	// Done is closed when the program has ended.
	Done() <-chan struct{}
	// Wait blocks until Done and tells how the program ended.
	Wait() Exit
	// PID is the program's number on the host; 0 if it is not known.
	PID() int
}

// Exit tells how a program ended: by exit with Code, or by Signal if not 0.
type Exit struct {
	Code    int
	Signal  syscall.Signal
	CPUTime time.Duration // of the program and the children that it waited for
}

// Success reports whether the program exited with 0.
func (e Exit) Success() bool { return e.Code == 0 && e.Signal == 0 }

// Status is the number that a shell would show: Code, or 128+Signal.
func (e Exit) Status() int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}
	return e.Code
}
