package intercept_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/intercept"
)

// patience bounds everything that should take milliseconds. It only says when a
// test gives up: with the race detector on a busy machine, a case takes seconds.
const patience = 3 * time.Minute

var (
	caseIP4 = netip.MustParseAddr("10.77.0.2")
	caseIP6 = netip.MustParseAddr("fd77::2")
)

func testContext(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	tb.Cleanup(cancel)
	return ctx
}

// logTo writes warnings of the case into the test's log.
func logTo(tb testing.TB) *slog.Logger {
	tb.Helper()
	return slog.New(slog.NewTextHandler(tb.Output(), nil))
}

func config(tb testing.TB) intercept.Config {
	tb.Helper()
	return intercept.Config{
		Hostname: "web-0", IP4: caseIP4, IP6: caseIP6,
		Search: []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local"},
		Log:    logTo(tb),
	}
}

// startCase builds and runs a case that ends with the test.
func startCase(tb testing.TB, cfg intercept.Config) *intercept.Case {
	tb.Helper()
	c, err := intercept.Start(testContext(tb), cfg)
	if err != nil {
		tb.Fatalf("Start: %v", err)
	}
	ran := make(chan error, 1)
	go func() { ran <- c.Run(context.Background()) }()
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Errorf("Close: %v", err)
		}
		if err := within(tb, "Run to end", ran); err != nil {
			tb.Errorf("Run: %v", err)
		}
	})
	return c
}

// within receives from ch, and fails the test if there is nothing for too long.
func within[T any](tb testing.TB, what string, ch <-chan T) T {
	tb.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.NewTimer(patience).C:
		tb.Fatalf("waited %s for %s", patience, what)
		panic("not reached")
	}
}

// readAll reads a connection to its end.
func readAll(conn net.Conn) ([]byte, error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	return io.ReadAll(conn)
}

// program is a process in a case with its standard streams.
type program struct {
	*intercept.Process
	stdin  *os.File
	stdout *os.File
	errout *output
}

// output collects what a program writes.
type output struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	done chan struct{}
}

func collect(r *os.File) *output {
	o := &output{done: make(chan struct{})}
	go func() {
		defer close(o.done)
		defer r.Close()
		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			o.mu.Lock()
			o.buf.Write(buf[:n])
			o.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return o
}

func pipe(tb testing.TB) (r, w *os.File) {
	tb.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	return r, w
}

// start runs args in the case with pipes.
func start(tb testing.TB, c *intercept.Case, p intercept.Program) *program {
	tb.Helper()
	inR, inW := pipe(tb)
	outR, outW := pipe(tb)
	errR, errW := pipe(tb)
	p.Stdin, p.Stdout, p.Stderr = inR, outW, errW
	proc, err := c.Start(p)
	inR.Close()
	outW.Close()
	errW.Close()
	if err != nil {
		inW.Close()
		outR.Close()
		errR.Close()
		tb.Fatalf("Start %v: %v", p.Args, err)
	}
	prog := &program{Process: proc, stdin: inW, stdout: outR, errout: collect(errR)}
	tb.Cleanup(func() {
		inW.Close()
		outR.Close()
		errR.Close()
		within(tb, "the program's stderr", prog.errout.done)
	})
	return prog
}

// role starts this test binary as a program in the case.
func role(tb testing.TB, c *intercept.Case, args ...string) *program {
	tb.Helper()
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	return start(tb, c, intercept.Program{Args: append([]string{exe, "role"}, args...), NewSession: true})
}

// ready waits for the program's first line.
func (p *program) ready(tb testing.TB) *program {
	tb.Helper()
	if got := p.readLine(tb); got != "ready" {
		tb.Fatalf("first line %q, want ready; stderr %s", got, p.stderr())
	}
	return p
}

func (p *program) stderr() string {
	p.errout.mu.Lock()
	defer p.errout.mu.Unlock()
	return p.errout.buf.String()
}

// ask writes a line to the program and gives its answer.
func (p *program) ask(tb testing.TB, line string) string {
	tb.Helper()
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		tb.Fatal(err)
	}
	return p.readLine(tb)
}

func (p *program) readLine(tb testing.TB) string {
	tb.Helper()
	_ = p.stdout.SetReadDeadline(time.Now().Add(patience))
	var line []byte
	var b [1]byte
	for {
		if _, err := p.stdout.Read(b[:]); err != nil {
			tb.Fatalf("read a line: %v after %q; stderr %s", err, line, p.stderr())
		}
		if b[0] == '\n' {
			return string(line)
		}
		line = append(line, b[0])
	}
}

// result waits for the end and gives everything written to stdout.
func (p *program) result(tb testing.TB) (string, intercept.Exit) {
	tb.Helper()
	_ = p.stdout.SetReadDeadline(time.Now().Add(patience))
	out, err := io.ReadAll(p.stdout)
	if err != nil {
		tb.Fatalf("read output: %v; stderr %s", err, p.stderr())
	}
	within(tb, fmt.Sprintf("program %d to end", p.PID()), p.Done())
	within(tb, "the end of what it says on stderr", p.errout.done)
	return string(out), p.Wait()
}

// run executes a role to its end and expects success.
func run(tb testing.TB, c *intercept.Case, args ...string) string {
	tb.Helper()
	p := role(tb, c, args...)
	p.stdin.Close()
	out, exit := p.result(tb)
	if exit != (intercept.Exit{}) {
		tb.Fatalf("%v: %v; stderr %s", args, exit, p.stderr())
	}
	return out
}

// serveOutbound answers every outbound connection with what is known about it.
func serveOutbound(tb testing.TB, c *intercept.Case) {
	tb.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := c.Outbound().Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(conn, "dst=%v src=%v localhost=%v", conn.OrigDst, conn.Source.Addr(), conn.Localhost)
			conn.Close()
		}
	})
	tb.Cleanup(func() {
		_ = c.Close()
		wg.Wait()
	})
}

func lines(s string) []string { return strings.Split(strings.TrimSuffix(s, "\n"), "\n") }
