package intercept

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Config says what case to build. Only IP4 is required.
type Config struct {
	Hostname string     // host name inside the case; "" keeps the host's
	IP4      netip.Addr // the case's own address, for example 10.77.0.2
	IP6      netip.Addr // the same for IPv6; invalid leaves the case without IPv6
	// Search are the domains that short names are completed with, from the
	// longest to the shortest: ns.svc.cluster.local, svc.cluster.local,
	// cluster.local. Names below them that the Resolver does not know do not
	// exist, and are never asked for on the host.
	Search []string
	Files  []File // files that exist only inside the case
	Dirs   []Dir  // directories that are nowhere else to be seen
	// VolumeDir is a directory of the host, which must exist, where the volumes of Dirs
	// are kept from one case to the next; if "", they are empty and end with the case.
	VolumeDir string
	// Executable is started with the argument "agent"; "" means this program.
	Executable string
	Log        *slog.Logger // nil discards
	// Resolvers are asked for names that are not the mesh's; empty means those
	// of the host's /etc/resolv.conf, read again when it changes.
	Resolvers []netip.AddrPort
	// DNSAnswered, if not nil, is told of each answer of the DNS: its response
	// code in lower case (noerror, nxdomain, refused, formerr, badvers, servfail), or
	// DNSForwarded.
	// It is called concurrently and must not block.
	DNSAnswered func(result string)
	// MeshOnly are addresses that mean something inside cases only, and would reach
	// strangers from the host. UDP to them is refused as by a host where nobody
	// listens, and the host's resolvers are not asked for their names.
	MeshOnly []netip.Prefix
	// MaxUDPFlows bounds the UDP passthrough (two sockets a flow); 0 means 1024.
	// The flow that was silent longest makes room.
	MaxUDPFlows int
	// UDPIdle is how long a silent flow is kept; 0 means 60 s.
	UDPIdle time.Duration
}

func (cfg *Config) validate() error {
	if !cfg.IP4.Is4() {
		return fmt.Errorf("case address %v is not an IPv4 address", cfg.IP4)
	}
	if cfg.IP6.IsValid() && !cfg.IP6.Is6() {
		return fmt.Errorf("case address %v is not an IPv6 address", cfg.IP6)
	}
	if len(cfg.Hostname) > 64 {
		return fmt.Errorf("host name %q is longer than 64 bytes", cfg.Hostname)
	}
	for i := range cfg.Files {
		f := &cfg.Files[i]
		if !cleanPath(f.Path) {
			return fmt.Errorf("file path %q is not absolute and clean", f.Path)
		}
		if m := f.Mount; m != "" && (!cleanPath(m) || !strings.HasPrefix(f.Path, m+"/")) {
			return fmt.Errorf("mount path %q of %s is not a clean path above it", m, f.Path)
		}
	}
	for _, d := range cfg.Dirs {
		if !cleanPath(d.Path) {
			return fmt.Errorf("directory path %q is not absolute and clean", d.Path)
		}
		if !filepath.IsLocal(d.Volume) || filepath.Clean(d.Volume) != d.Volume || d.Volume == "." {
			return fmt.Errorf("volume %q of directory %s is not a relative and clean path", d.Volume, d.Path)
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Executable == "" {
		cfg.Executable = "/proc/self/exe"
	}
	if cfg.MaxUDPFlows == 0 {
		cfg.MaxUDPFlows = 1024
	}
	if cfg.UDPIdle == 0 {
		cfg.UDPIdle = 60 * time.Second
	}
	return nil
}

func cleanPath(p string) bool {
	return filepath.IsAbs(p) && filepath.Clean(p) == p && p != "/" && strings.IndexByte(p, 0) < 0
}

// Case is a running glass case.
type Case struct {
	// Read-only after Start.
	cfg       Config
	log       *slog.Logger
	pid       int
	agent     *os.Process
	ch        *channel
	listeners *listeners
	outbound  *Listener
	pools     [2]*socketPool // by socketKind: TCP4, TCP6
	targets   targetMemory
	done      chan struct{} // closed when P1 is gone and its end is in state
	closing   chan struct{} // closed by Close

	closeOnce sync.Once
	state     string // how P1 ended; written before done is closed
	byItself  bool   // P1 ended before Close was called; written before done is closed

	mu       sync.Mutex // guards what follows
	gone     bool       // no more answers will come
	nextID   uint32
	pending  map[uint32]func(packet, error)
	programs map[int32]*Process
}

// Start builds a case and returns when it is ready: rules, listeners and files are
// in place, no program runs. The error is a *SetupError unless cfg is wrong or ctx
// is done. The caller must call Run, and Close if it does not.
func Start(ctx context.Context, cfg Config) (*Case, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("build the case: %w", err)
	}
	c, err := launch(&cfg)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, c.kill)
	err = c.handshake()
	if !stop() || err != nil {
		c.kill()
		<-c.done
		c.ch.close()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("build the case: %w", context.Cause(ctx))
		}
		return nil, err
	}
	return c, nil
}

// Run serves the case until P1 is gone or ctx is done, and leaves nothing behind.
// It returns nil after Close or when ctx is done, and an error when P1 ended by
// itself.
func (c *Case) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	g.Go(func() error { c.readEvents(); cancel(); return nil })
	g.Go(func() error { c.fillPools(ctx); return nil })
	for _, l := range c.listeners.tcp {
		g.Go(func() error { c.acceptLoop(ctx, l); return nil })
	}
	g.Go(func() error { c.serveUDP(ctx); return nil })
	<-c.done
	cancel()
	c.listeners.close()
	c.ch.close()
	c.outbound.close()
	_ = g.Wait()
	c.outbound.drain()
	for _, p := range c.pools {
		p.close()
	}
	if c.byItself {
		return fmt.Errorf("the case's agent ended: %s", c.state)
	}
	return nil
}

// Close ends everything in the case with SIGKILL and waits until it is gone.
func (c *Case) Close() error {
	c.closeOnce.Do(func() { close(c.closing) })
	c.kill()
	<-c.done
	c.ch.close()
	c.listeners.close()
	c.outbound.close()
	return nil
}

func (c *Case) kill() { _ = c.agent.Kill() }

// Done is closed when nothing in the case runs any more.
func (c *Case) Done() <-chan struct{} { return c.done }

// PID is the process id of P1 on the host.
func (c *Case) PID() int { return c.pid }

// readEvents hands every packet of P1 to whom it concerns.
func (c *Case) readEvents() {
	for {
		p, err := c.ch.receive()
		if err != nil {
			c.kill() // a broken channel is the end of the case
			break
		}
		switch p.kind {
		case kindSockets, kindStarted:
			c.mu.Lock()
			answer := c.pending[p.id]
			delete(c.pending, p.id)
			c.mu.Unlock()
			if answer != nil {
				answer(p, nil)
			}
		case kindExited:
			c.exited(&p)
		case kindSetup, kindReady, kindFailed, kindStart, kindProbe, kindProbed:
		}
		p.closeFDs()
	}
	<-c.done
	c.mu.Lock()
	c.gone = true
	pending, programs := c.pending, c.programs
	c.pending, c.programs = map[uint32]func(packet, error){}, map[int32]*Process{}
	c.mu.Unlock()
	for _, answer := range pending {
		answer(packet{}, errCaseGone)
	}
	for _, p := range programs {
		p.finish(Exit{Signal: syscall.SIGKILL})
	}
}

// request sends p; answer is called once, on the reading goroutine, and may take
// descriptors out of the packet. It is not called when request fails.
func (c *Case) request(p *packet, answer func(packet, error)) error {
	c.mu.Lock()
	if c.gone {
		c.mu.Unlock()
		return errCaseGone
	}
	c.nextID++
	p.id = c.nextID
	c.pending[p.id] = answer
	c.mu.Unlock()
	if err := c.ch.send(p); err != nil {
		c.mu.Lock()
		_, mine := c.pending[p.id]
		delete(c.pending, p.id)
		c.mu.Unlock()
		if mine {
			return fmt.Errorf("%w: %w", errCaseGone, err)
		}
	}
	return nil
}
