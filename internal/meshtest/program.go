package meshtest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"
)

// Program is one program that `vitrine run` added to a mesh. It is asked and
// answers on its standard input and output, a line of JSON each.
type Program struct {
	m    *Mesh
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	log  *logBuffer
	done bool
}

// Run adds a program to the mesh: `vitrine run ARGS`. It is ended with the
// test, before the mesh.
func (m *Mesh) Run(args ...string) *Program {
	m.t.Helper()
	p := &Program{m: m, cmd: m.command(append([]string{"--run-dir", m.runDir(), "run"}, args...)...), log: &logBuffer{}}
	p.cmd.Stderr = p.log
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		m.t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
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
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		p.m.t.Fatalf("the program did not answer: %v\n%s", err, p.log)
	}
	if err := json.Unmarshal(line, answer); err != nil {
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
	kill := time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Signal(syscall.SIGKILL) })
	_, _ = io.Copy(io.Discard, p.out)
	err := p.cmd.Wait()
	if !kill.Stop() {
		err = fmt.Errorf("it did not end: %w", err)
	}
	if err != nil {
		p.m.t.Errorf("the program ended with %v\n%s", err, p.log)
	}
}
