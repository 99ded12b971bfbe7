package meshtest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Program is one program that `vitrine run` added to a mesh. It is asked and
// answers on its standard input and output, a line of JSON each.
type Program struct {
	m    *Mesh
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *lines
	log  *logBuffer
	done bool
}

// Run adds a program to the mesh: `vitrine run ARGS`. It is ended with the
// test, before the mesh.
func (m *Mesh) Run(args ...string) *Program {
	m.t.Helper()
	p := &Program{m: m, cmd: m.command(context.Background(), append([]string{"--run-dir", m.RunDir, "run"}, args...)...), log: &logBuffer{}}
	p.cmd.Stderr = p.log
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		m.t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	p.out = newLines(out)
	if err := p.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(p.Stop)
	m.WaitSettled()
	return p
}

// Send writes a request, without waiting for its answer.
func (p *Program) Send(request any) {
	p.m.t.Helper()
	data, err := json.Marshal(request)
	if err != nil {
		p.m.t.Fatal(err)
	}
	if _, err := p.in.Write(append(data, '\n')); err != nil {
		p.m.t.Fatalf("ask the program: %v\n%s", err, p.log)
	}
}

// Receive reads the next answer.
func (p *Program) Receive(answer any) {
	p.m.t.Helper()
	line, err := p.out.next()
	if err != nil {
		p.m.t.Fatalf("the program did not answer: %v\n%s", err, p.log)
	}
	if err := json.Unmarshal([]byte(line), answer); err != nil {
		p.m.t.Fatalf("the program answered %s: %v", line, err)
	}
}

// Call sends a request and reads its answer.
func (p *Program) Call(request, answer any) {
	p.m.t.Helper()
	p.Send(request)
	p.Receive(answer)
}

// Stop closes the program's standard input, at which it is to end by itself
// with code 0. It may be called twice.
func (p *Program) Stop() {
	p.m.t.Helper()
	if p.done {
		return
	}
	p.done = true
	p.in.Close()
	kill := time.AfterFunc(Patience, func() { _ = p.cmd.Process.Kill() })
	err := p.out.rest()
	err = errors.Join(err, p.cmd.Wait())
	if !kill.Stop() {
		err = fmt.Errorf("it did not end within %s: %w", Patience, err)
	}
	if err != nil {
		p.m.t.Errorf("the program ended with %v\n%s", err, p.log)
	}
}

// answerWithin bounds the time for one answer, which may take a minute of load.
const answerWithin = 10 * time.Minute

// lines reads a pipe, with deadlines.
type lines struct {
	pipe io.Reader
	buf  *bufio.Reader
}

func newLines(pipe io.Reader) *lines { return &lines{pipe, bufio.NewReader(pipe)} }

// limit sets the deadline of what is read next.
func (l *lines) limit(d time.Duration) error {
	f, ok := l.pipe.(*os.File) // what exec.Cmd makes
	if !ok {
		return fmt.Errorf("a %T has no deadline", l.pipe)
	}
	return f.SetReadDeadline(time.Now().Add(d))
}

// next is the next line, without its end.
func (l *lines) next() (string, error) {
	if err := l.limit(answerWithin); err != nil {
		return "", err
	}
	line, err := l.buf.ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err
}

// rest drops everything up to the end of the pipe.
func (l *lines) rest() error {
	if err := l.limit(Patience + 10*time.Second); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, l.buf)
	return err
}
