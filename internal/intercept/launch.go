package intercept

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// launch starts P1 in its namespaces.
func launch(cfg *Config) (*Case, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, newSetupError(stepExec, fmt.Errorf("socketpair: %w", err))
	}
	theirs := os.NewFile(uintptr(pair[1]), "agent control socket")
	defer theirs.Close()
	ch, err := newChannel(pair[0])
	if err != nil {
		return nil, newSetupError(stepExec, err)
	}
	c := &Case{
		cfg: *cfg, log: cfg.Log, ch: ch,
		done: make(chan struct{}), closing: make(chan struct{}),
		pending: map[uint32]func(packet, error){}, programs: map[int32]*Process{},
	}
	started := make(chan error, 1)
	// The parent-death signal is tied to the thread that started P1, so that
	// thread must live as long as P1. It is not given back to the scheduler.
	go func() {
		runtime.LockOSThread()
		c.agent, err = startAgent(cfg.Executable, theirs)
		started <- err
		if err != nil {
			return
		}
		if state, err := c.agent.Wait(); err != nil {
			c.state = err.Error()
		} else {
			c.state = state.String()
		}
		select {
		case <-c.closing:
		default:
			c.byItself = true
		}
		close(c.done)
	}()
	if err := <-started; err != nil {
		ch.close()
		step := stepNamespaces
		if errors.Is(err, os.ErrNotExist) {
			step = stepExec
		}
		return nil, newSetupError(step, err)
	}
	c.pid = c.agent.Pid
	return c, nil
}

func startAgent(executable string, control *os.File) (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	return os.StartProcess(executable, []string{"vitrine-proxy", agentArg}, &os.ProcAttr{
		Dir: "/",
		// One processor is plenty for P1, and keeps it small.
		Env:   []string{"GOMAXPROCS=1", "GOGC=50"},
		Files: []*os.File{null, null, os.Stderr, control},
		Sys:   agentAttr(),
	})
}

// agentAttr are the namespaces and capabilities of P1. The user namespace maps
// only the caller's own ids, onto themselves, which needs no privilege.
func agentAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if rootless() {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
		attr.AmbientCaps = agentCaps()
	}
	return attr
}

func rootless() bool { return os.Geteuid() != 0 || !hasSysAdmin() }

// handshake sends the request and takes over the listeners.
func (c *Case) handshake() error {
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil {
		hosts = []byte("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	}
	err = c.ch.sendJSON(packet{kind: kindSetup}, setupRequest{
		Hostname: c.cfg.Hostname, IP4: c.cfg.IP4, IP6: c.cfg.IP6, MeshOnly: c.cfg.MeshOnly,
		ResolvConf: resolvConf(&c.cfg), Hosts: hostsFile(hosts, &c.cfg), Files: c.cfg.Files, Dirs: c.cfg.Dirs, VolumeDir: c.cfg.VolumeDir,
		UID: os.Geteuid(), GID: os.Getegid(),
	})
	if err != nil {
		return newSetupError(stepHandshake, err)
	}
	p, err := c.ch.receive()
	if err != nil {
		return newSetupError(stepHandshake, fmt.Errorf("the agent ended: %w", err))
	}
	switch p.kind {
	case kindFailed:
		var f setupFailure
		if err := json.Unmarshal(p.body, &f); err != nil {
			return newSetupError(stepHandshake, err)
		}
		return newSetupError(f.Step, &remoteError{text: f.Error, errno: syscall.Errno(f.Errno)})
	case kindReady:
	default:
		p.closeFDs()
		return newSetupError(stepHandshake, fmt.Errorf("unexpected packet of kind %d", p.kind))
	}
	var reply setupReply
	if err := json.Unmarshal(p.body, &reply); err != nil {
		p.closeFDs()
		return newSetupError(stepHandshake, err)
	}
	for _, note := range reply.Notes {
		c.log.Warn("the case is limited", "reason", note)
	}
	c.listeners, err = takeListeners(&p, reply.Sockets)
	if err != nil {
		return newSetupError(stepHandshake, err)
	}
	c.outbound = newListener()
	c.pools[socketTCP4] = newSocketPool(poolSize)
	c.pools[socketTCP6] = newSocketPool(poolSize6)
	return nil
}
