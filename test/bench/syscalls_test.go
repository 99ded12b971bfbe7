package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Bounds of system calls per request at 16 connections. Two writes are the
// least there can be; of the three reads one finds the client's connection
// empty before it waits for the next request.
const (
	maxTransfers = 5.05
	maxSyscalls  = 6.2
)

// TestSyscallsPerRequest counts every system call of a hop in a process of its
// own, by tracing it, while 16 connections send requests one after the other.
// Other load on the machine can only add calls (less comes in one wake-up), so
// the best of some bursts counts.
func TestSyscallsPerRequest(t *testing.T) {
	const conns, requests, bursts = 16, 150, 8
	origin, listen := serveKilobyte(t), freeAddr(t)
	pid := startHop(t, listen, origin)
	clients := make([]net.Conn, conns)
	readers := make([]*bufio.Reader, conns)
	for i := range clients {
		clients[i] = dialHop(t, listen)
		readers[i] = bufio.NewReaderSize(clients[i], 4096)
	}
	burst := func(n int) {
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				for range n {
					if err := exchange(clients[i], readers[i]); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	burst(20) // pools and handles are warm
	var counts callCounts
	traced, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- traceCalls(pid, &counts, traced) }()
	<-traced
	best, bestTransfers := 1e9, 1e9
	for range bursts {
		counts.clear()
		burst(requests)
		all, transfers := counts.perRequest(conns * requests)
		t.Logf("%.2f system calls per request, of them %.2f that read or write", all, transfers)
		best, bestTransfers = min(best, all), min(bestTransfers, transfers)
		if t.Failed() || best <= maxSyscalls && bestTransfers <= maxTransfers {
			break
		}
	}
	if best > maxSyscalls || bestTransfers > maxTransfers {
		t.Errorf("%.2f system calls per request, want at most %v; %.2f that read or write, want at most %v; most often: %v",
			best, maxSyscalls, bestTransfers, maxTransfers, counts.most())
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// callCounts are counts by number of the system call.
type callCounts [512]atomic.Int64

func (c *callCounts) clear() {
	for i := range c {
		c[i].Store(0)
	}
}

func (c *callCounts) perRequest(requests int) (all, transfers float64) {
	for nr := range c {
		n := float64(c[nr].Load()) / float64(requests)
		all += n
		switch nr {
		case unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV,
			unix.SYS_RECVFROM, unix.SYS_SENDTO, unix.SYS_RECVMSG, unix.SYS_SENDMSG:
			transfers += n
		}
	}
	return all, transfers
}

func (c *callCounts) most() map[int]int64 {
	out := map[int]int64{}
	for nr := range c {
		if n := c[nr].Load(); n > 50 {
			out[nr] = n
		}
	}
	return out
}

// traceCalls counts the system calls of all threads of a child until it has
// been killed. It closes ready when every thread is being traced.
func traceCalls(pid int, counts *callCounts, ready chan<- struct{}) error {
	runtime.LockOSThread() // ptrace knows threads; this one is given up at the end
	began := sync.OnceFunc(func() { close(ready) })
	defer began() // whatever went wrong
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	tasks, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return err
	}
	untraced := map[int]bool{} // threads that have not stopped yet
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			continue
		}
		if err := ptrace(unix.PTRACE_SEIZE, tid, 0, options); err != nil {
			return os.NewSyscallError("ptrace seize", err)
		}
		if err := ptrace(unix.PTRACE_INTERRUPT, tid, 0, 0); err != nil {
			return os.NewSyscallError("ptrace interrupt", err)
		}
		untraced[tid] = true
	}
	for {
		var status unix.WaitStatus
		tid, err := unix.Wait4(-1, &status, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil:
			return os.NewSyscallError("wait", err)
		}
		if delete(untraced, tid); len(untraced) == 0 {
			began()
		}
		if !status.Stopped() {
			continue // it has ended
		}
		pass := uintptr(0)
		switch sig := status.StopSignal(); {
		case sig == unix.SIGTRAP|0x80:
			if nr, entry := syscallInfo(tid); entry && nr < uint64(len(counts)) {
				counts[nr].Add(1)
			}
		case uint32(status)>>16 == 0: // a signal on its way, not an event of the trace
			pass = uintptr(sig)
		}
		// It fails when the thread has been killed, which the next wait tells.
		_ = ptrace(unix.PTRACE_SYSCALL, tid, 0, pass)
	}
}

func ptrace(request, tid int, addr, data uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, data, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// syscallInfo reads the number of the system call that a thread stopped at, and
// whether it is about to enter it (ptrace(2), PTRACE_GET_SYSCALL_INFO).
func syscallInfo(tid int) (nr uint64, entry bool) {
	var info struct {
		op   uint8
		_    [3]byte
		_    uint32 // architecture
		_, _ uint64 // instruction and stack pointer
		nr   uint64
		_    [6]uint64 // arguments
		_, _ uint64
	}
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	return info.nr, errno == 0 && info.op == unix.PTRACE_SYSCALL_INFO_ENTRY
}

// startHop builds the hop and starts it on one processor.
func startHop(t *testing.T, listen, origin string) int {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "hop")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", bin, "./hop").CombinedOutput(); err != nil {
		t.Fatalf("build the hop: %v\n%s", err, out)
	}
	// Not exec.Cmd: the tracer waits for it.
	p, err := os.StartProcess(bin, []string{bin, "-listen", listen, "-origin", origin}, &os.ProcAttr{
		Env: append(os.Environ(), "GOMAXPROCS=1"), Files: []*os.File{nil, os.Stderr, os.Stderr},
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}, // if the tests are killed
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() }) // it has ended if the test went well
	return p.Pid
}

func dialHop(t *testing.T, addr string) net.Conn {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; runtime.Gosched() {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			err = c.SetDeadline(time.Now().Add(5 * time.Minute)) // of the whole test
		}
		if err == nil {
			return c
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// freeAddr is an address to listen on: until the test ends a socket is bound to it
// that does not listen, so that nobody gets it by chance. Go's listeners may be
// bound beside such a one.
func freeAddr(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
	)
	if err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", at.(*unix.SockaddrInet4).Port)
}

// serveKilobyte is an origin that answers every request with 1 KiB.
func serveKilobyte(t *testing.T) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n" + strings.Repeat("x", 1024))
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 4096)
				for n := 0; ; {
					m, err := c.Read(buf[n:])
					if err != nil {
						return
					}
					if n += m; bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
						n = 0
						if _, err := c.Write(answer); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}
