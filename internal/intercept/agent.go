package intercept

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// agentArg is the first argument of P1.
const agentArg = "agent"

// controlFD is where P1 finds its socket.
const controlFD = 3

// IsAgent reports whether args (os.Args) are those of an agent, which must call
// RunAgent and nothing else.
func IsAgent(args []string) bool { return len(args) == 2 && args[1] == agentArg }

// RunAgent is the whole life of P1. It returns the exit code when P0 is gone, the
// setup failed or ctx is done.
func RunAgent(ctx context.Context) int {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "vitrine-proxy agent is started by vitrine-proxy itself, not by hand")
		return 2
	}
	// Programs get the three descriptors that they are given, not what P0's
	// caller happened to leave open.
	if err := unix.CloseRange(controlFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		for fd := controlFD; fd < 1024; fd++ { // before Linux 5.11
			unix.CloseOnExec(fd)
		}
	}
	ch, err := newChannel(controlFD)
	if err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		return 2
	}
	defer ch.close()
	stop := context.AfterFunc(ctx, ch.close)
	defer stop()
	a := &agent{ch: ch, children: map[int]struct{}{}}
	a.takeSignals()
	a.run(ctx)
	return 0
}

// agent is P1.
type agent struct {
	ch    *channel
	spawn *spawner

	mu       sync.Mutex // held while a child is started and while children are reaped
	children map[int]struct{}
}

// takeSignals reads and drops every signal that a terminal or an operator sends
// to the whole process group: P1 lives exactly as long as P0. The signals that
// were ignored when we started stay ignored, because programs inherit that.
func (a *agent) takeSignals() {
	drop := make(chan os.Signal, 16)
	child := make(chan os.Signal, 1)
	for s := syscall.Signal(1); s < 32; s++ {
		switch s {
		case syscall.SIGCHLD:
			signal.Notify(child, s)
		case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGURG, syscall.SIGPROF,
			syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGTRAP, syscall.SIGABRT:
		default:
			if !signal.Ignored(s) {
				signal.Notify(drop, s)
			}
		}
	}
	go func() {
		for {
			select {
			case <-drop:
			case <-child:
				a.reap()
			}
		}
	}()
}

// run answers P0 until it is gone.
func (a *agent) run(ctx context.Context) {
	for {
		p, err := a.ch.receive()
		if err != nil {
			return // whatever it is: without P0 there is nothing to live for
		}
		switch p.kind {
		case kindSetup:
			if err := a.setup(&p); err != nil {
				return // P0 knows it
			}
		case kindProbe:
			a.probe(ctx, &p)
			return
		case kindSockets:
			a.sockets(&p)
		case kindStart:
			a.start(&p)
		case kindReady, kindFailed, kindStarted, kindExited, kindProbed:
			// Not for us.
		}
		p.closeFDs()
	}
}

// setup builds the case in the fixed order in which the steps depend on each
// other, and reports the result.
func (a *agent) setup(p *packet) error {
	var req setupRequest
	if err := json.Unmarshal(p.body, &req); err != nil {
		return a.fail(stepHandshake, err)
	}
	var reply setupReply
	ip6, err := setupLoopback(req.IP4, req.IP6)
	if err != nil {
		return a.fail(stepLoopback, err)
	}
	reply.IPv6 = ip6
	reply.Notes = append(reply.Notes, tuneNetwork()...)
	want := ruleset{ip4: req.IP4, localhost: true, udp: true}
	if ip6 {
		want.ip6 = req.IP6
	}
	got, notes, err := want.loadBest()
	if err != nil {
		return a.fail(stepRules, err)
	}
	reply.Localhost, reply.UDP = got.localhost, got.udp
	reply.Notes = append(reply.Notes, notes...)
	if err := got.refuseUDP(req.MeshOnly); err != nil {
		reply.Notes = append(reply.Notes, "UDP to other workloads is dropped without an error: "+err.Error()+" (modprobe nft_reject_inet)")
	}
	fds, err := openListeners(&reply)
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	if err != nil {
		return a.fail(stepListen, err)
	}
	notes, err = setupMounts(&req)
	if _, ok := errors.AsType[volumeError](err); ok {
		return a.fail(stepVolumes, err)
	}
	if err != nil {
		return a.fail(stepMounts, err)
	}
	reply.Notes = append(reply.Notes, notes...)
	a.spawn, notes = newSpawner(req.Hostname)
	reply.Notes = append(reply.Notes, notes...)
	return a.ch.sendJSON(packet{kind: kindReady, fds: fds}, reply)
}

// openListeners opens what the loaded rules redirect to.
func openListeners(reply *setupReply) (fds []int, err error) {
	for _, k := range []listenerKind{
		listenTCP4, listenTCP6, listenDNSTCP4, listenDNSTCP6, listenDNSUDP4, listenDNSUDP6, listenUDP4, listenUDP6,
	} {
		if k.ipv6() && !reply.IPv6 || (k == listenUDP4 || k == listenUDP6) && !reply.UDP {
			continue
		}
		fd, err := k.open()
		if err != nil {
			return fds, err
		}
		fds = append(fds, fd)
		reply.Sockets = append(reply.Sockets, k)
	}
	return fds, nil
}

// fail reports a failed step to P0 and returns the error.
func (a *agent) fail(step string, err error) error {
	f := setupFailure{Step: step, Error: err.Error()}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		f.Errno = int(errno)
	}
	return errors.Join(err, a.ch.sendJSON(packet{kind: kindFailed}, f))
}

// sockets makes a batch of sockets for P0.
func (a *agent) sockets(p *packet) {
	answer := packet{kind: kindSockets, id: p.id, a: p.a}
	for range min(p.b, maxFDs) {
		fd, err := socketKind(p.a).open()
		if err != nil {
			var errno syscall.Errno
			if len(answer.fds) == 0 && errors.As(err, &errno) {
				answer.b = int32(errno)
			}
			break
		}
		answer.fds = append(answer.fds, fd)
	}
	if err := a.ch.send(&answer); err != nil {
		// P0 is gone, which receive will see, or the kernel refused that many
		// descriptors in flight: P0 waits for an answer and asks again.
		var errno syscall.Errno
		if !errors.As(err, &errno) {
			errno = unix.EIO
		}
		_ = a.ch.send(&packet{kind: kindSockets, id: p.id, a: p.a, b: int32(errno)})
	}
	answer.closeFDs()
}

// start starts a program and reports it. The lock keeps the report before that
// of its end, and keeps reap away from a child that failed to exec.
func (a *agent) start(p *packet) {
	answer := packet{kind: kindStarted, id: p.id}
	a.mu.Lock()
	defer a.mu.Unlock()
	var req programRequest
	pid, pidfd, err := 0, -1, json.Unmarshal(p.body, &req)
	if err == nil {
		pid, pidfd, err = a.spawn.start(&req, p.fds)
	}
	if err != nil {
		var se *StartError
		if !errors.As(err, &se) {
			se = &StartError{Code: 126, Reason: err.Error()}
		}
		answer.a, answer.b, answer.body = int32(se.Errno), int32(se.Code), []byte(se.Reason)
		_ = a.ch.send(&answer)
		return
	}
	answer.a = int32(pid)
	answer.fds = []int{pidfd}
	if req.NewSession {
		a.children[pid] = struct{}{}
	}
	_ = a.ch.send(&answer)
	answer.closeFDs()
}

// reap collects every child that ended, programs and orphans alike, and reports
// them. When a program with a session of its own ends, the rest of its process
// group is killed, as the end of a container's first process kills the others.
func (a *agent) reap() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		var status unix.WaitStatus
		var used unix.Rusage
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, &used)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if _, ok := a.children[pid]; ok {
			delete(a.children, pid)
			_ = unix.Kill(-pid, unix.SIGKILL)
		}
		cpu := used.Utime.Nano() + used.Stime.Nano()
		_ = a.ch.send(&packet{kind: kindExited, a: int32(pid), b: int32(status), body: binary.LittleEndian.AppendUint64(nil, uint64(cpu))})
	}
}
