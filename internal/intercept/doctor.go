package intercept

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Check is one thing that a case needs.
type Check struct {
	Name   string
	OK     bool
	Detail string // what was found
	Remedy string // what to do; "" if nothing needs doing
}

// minOpenFiles is enough for one proxy with a few thousand connections.
const minOpenFiles = 4096

// Diagnose tries everything that a case needs, most of it in a child process that
// is started from executable ("" is this program) as an agent. Checks come in the
// order of dependence; after a failed namespace the rest inside is not tried.
func Diagnose(ctx context.Context, executable string) []Check {
	checks := []Check{checkUserNamespaces(), checkOpenFiles()}
	cfg := Config{IP4: netip.AddrFrom4([4]byte{10, 77, 255, 254}), IP6: probeIP6(), Executable: executable}
	if err := cfg.validate(); err != nil {
		return append(checks, failed(stepExec, err))
	}
	c, err := launch(&cfg)
	if err != nil {
		return append(checks, splitNamespaces(&cfg, err)...)
	}
	checks = append(checks, Check{Name: "namespaces", OK: true, Detail: namespaceKinds()})
	defer func() {
		c.kill()
		<-c.done
		c.ch.close()
	}()
	stop := context.AfterFunc(ctx, c.kill)
	defer stop()
	inside, err := c.askProbe()
	if err != nil {
		return append(checks, failed(stepHandshake, err))
	}
	return append(checks, inside...)
}

func namespaceKinds() string {
	if rootless() {
		return "user, network, mount and process-id namespace as uid " + strconv.Itoa(os.Geteuid())
	}
	return "network, mount and process-id namespace as root"
}

func probeIP6() netip.Addr { return netip.AddrFrom16([16]byte{0xfd, 0x77, 14: 0xff, 15: 0xfe}) }

// askProbe lets P1 try the steps and returns what it found.
func (c *Case) askProbe() ([]Check, error) {
	if err := c.ch.sendJSON(packet{kind: kindProbe}, setupRequest{
		IP4: c.cfg.IP4, IP6: c.cfg.IP6, ResolvConf: resolvConf(&c.cfg), UID: os.Geteuid(), GID: os.Getegid(),
	}); err != nil {
		return nil, err
	}
	p, err := c.ch.receive()
	if err != nil {
		return nil, fmt.Errorf("the agent ended: %w", err)
	}
	defer p.closeFDs()
	var checks []Check
	if err := json.Unmarshal(p.body, &checks); err != nil {
		return nil, fmt.Errorf("answer of the agent: %w", err)
	}
	return checks, nil
}

// splitNamespaces finds out which namespace is refused.
func splitNamespaces(cfg *Config, all error) []Check {
	checks := []Check{failed(stepNamespaces, all)}
	for _, k := range []struct {
		name string
		flag uintptr
	}{
		{"user namespace", 0},
		{"network namespace", unix.CLONE_NEWNET},
		{"mount namespace", unix.CLONE_NEWNS},
		{"process-id namespace", unix.CLONE_NEWPID},
	} {
		attr := agentAttr()
		attr.Cloneflags = attr.Cloneflags&unix.CLONE_NEWUSER | k.flag
		if attr.Cloneflags == 0 {
			continue // root needs no user namespace
		}
		proc, err := os.StartProcess(cfg.Executable, []string{"vitrine-proxy", agentArg}, &os.ProcAttr{Sys: attr})
		if err != nil {
			checks = append(checks, Check{Name: k.name, Detail: err.Error(), Remedy: remedy(stepNamespaces, err)})
			continue
		}
		_ = proc.Kill()
		_, _ = proc.Wait()
		checks = append(checks, Check{Name: k.name, OK: true})
	}
	return checks
}

func failed(step string, err error) Check {
	return Check{Name: step, Detail: err.Error(), Remedy: remedy(step, err)}
}

func checkUserNamespaces() Check {
	c := Check{Name: "user namespace settings", OK: true}
	limit := sysctl("user/max_user_namespaces")
	c.Detail = "user.max_user_namespaces=" + limit
	switch {
	case !rootless():
		c.Detail = "not needed by root"
	case limit == "0":
		c.OK, c.Remedy = false, "run `sysctl user.max_user_namespaces=10000` as root"
	case sysctl("kernel/unprivileged_userns_clone") == "0":
		c.OK, c.Detail = false, "kernel.unprivileged_userns_clone=0"
		c.Remedy = "run `sysctl kernel.unprivileged_userns_clone=1` as root"
	case sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
		// A profile may allow it; the checks below tell.
		c.Detail, c.Remedy = "kernel.apparmor_restrict_unprivileged_userns=1", remedyAppArmor
	}
	return c
}

func checkOpenFiles() Check {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return Check{Name: "open files", Detail: err.Error()}
	}
	c := Check{Name: "open files", OK: lim.Max >= minOpenFiles, Detail: "at most " + strconv.FormatUint(lim.Max, 10)}
	if !c.OK {
		c.Remedy = "raise the hard limit of open files (ulimit -Hn) to at least " + strconv.Itoa(minOpenFiles)
	}
	return c
}

// probe is the part of Diagnose that runs in P1: each step of setup for itself,
// and a real connection for each kind of rule.
func (a *agent) probe(ctx context.Context, p *packet) {
	var req setupRequest
	if err := json.Unmarshal(p.body, &req); err != nil {
		return
	}
	var checks []Check
	note := func(name, step string, err error, detail string) bool {
		if err != nil {
			checks = append(checks, Check{Name: name, Detail: err.Error(), Remedy: remedy(step, err)})
			return false
		}
		checks = append(checks, Check{Name: name, OK: true, Detail: detail})
		return true
	}
	defer func() { _ = a.ch.sendJSON(packet{kind: kindProbed}, checks) }()
	ip6, err := setupLoopback(req.IP4, req.IP6)
	if !note("loopback interface and local routes", stepLoopback, err, "") {
		return
	}
	rules := ruleset{ip4: req.IP4}
	if ip6 {
		rules.ip6 = req.IP6
		note("IPv6", stepLoopback, nil, "available inside cases")
	} else {
		note("IPv6", stepLoopback, nil, "switched off: cases are IPv4 only")
	}
	tuneNetwork()
	if note("nftables rules", stepRules, rules.load(), "") {
		note("redirect of connections", stepRules, probeTCP(ctx, "192.0.2.1:9"), "original destination seen")
	}
	rules.localhost = true
	err = rules.load()
	if err == nil {
		err = probeTCP(ctx, "127.0.0.1:9")
	}
	note("localhost services of the host (nft_tproxy, nft_socket)", stepRules, err, "")
	rules.localhost, rules.udp = false, true
	err = rules.load()
	if err == nil {
		err = probeUDP(ctx, "192.0.2.1:9")
	}
	note("UDP through the proxy (nft_tproxy)", stepRules, err, "")
	note("ports below 1024", stepListen, probeLowPort(ctx), "")
	a.probeMounts(&req, note)
}

func (a *agent) probeMounts(req *setupRequest, note func(name, step string, err error, detail string) bool) {
	notes, err := setupMounts(req)
	note("private mounts", stepMounts, err, "")
	detail := "own /proc"
	if len(notes) > 0 {
		detail = notes[0] // not an error: cases work without
	}
	note("process list of the case", stepMounts, nil, detail)
}

// probeTimeout bounds each connection that is tried.
const probeTimeout = 2 * time.Second

// probeTCP connects to addr and checks that the connection arrives at our
// listener with that original destination.
func probeTCP(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	fd, err := listenTCP4.open()
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "probe listener")
	defer f.Close()
	nl, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("probe listener: %w", err)
	}
	defer nl.Close()
	l, ok := nl.(*net.TCPListener)
	if !ok {
		return fmt.Errorf("probe listener is a %T", nl)
	}
	client, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("a connection to %s was not redirected: %w", addr, err)
	}
	defer client.Close()
	_ = l.SetDeadline(time.Now().Add(probeTimeout))
	tc, err := l.AcceptTCP()
	if err != nil {
		return fmt.Errorf("a connection to %s did not arrive: %w", addr, err)
	}
	defer func() { _ = tc.Close() }()
	conn, err := classify(tc)
	if err != nil {
		return err
	}
	if conn.OrigDst.String() != addr {
		return fmt.Errorf("a connection to %s arrived as one to %v", addr, conn.OrigDst)
	}
	return nil
}

// probeUDP sends a datagram to addr and checks that our socket gets it.
func probeUDP(ctx context.Context, addr string) error {
	fd, err := listenUDP4.open()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	client, err := new(net.Dialer).DialContext(ctx, "udp", addr)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	defer client.Close()
	if _, err := client.Write([]byte("probe")); err != nil {
		return fmt.Errorf("send to %s: %w", addr, err)
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, int(probeTimeout.Milliseconds()))
	if err != nil && !errors.Is(err, syscall.EINTR) {
		return fmt.Errorf("poll: %w", err)
	}
	if n != 1 {
		return fmt.Errorf("a datagram to %s did not arrive", addr)
	}
	return nil
}

func probeLowPort(ctx context.Context) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:80")
	if err != nil {
		return fmt.Errorf("listen on port 80: %w", err)
	}
	return l.Close()
}
