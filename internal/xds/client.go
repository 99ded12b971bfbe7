package xds

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

const (
	defaultMaxBackoff = 5 * time.Second
	firstBackoff      = 50 * time.Millisecond
)

// ClientOptions configure a Client.
type ClientOptions struct {
	Target   string            // path of the control plane's Unix socket; required
	NodeID   string            // mesh.Workload.NodeID of this proxy; required
	Metadata map[string]string // sent along with the node id
	// LastGood is the file that keeps the last configuration that was applied,
	// for a start while the control plane is down; "" keeps none.
	LastGood string
	// MaxBackoff bounds the pause between two attempts to connect, jitter
	// included; 0 means 5 s.
	MaxBackoff time.Duration
	Log        *slog.Logger // required
}

// ClientStatus is what a Client reports of itself.
type ClientStatus struct {
	Connected   bool      // a stream to the control plane is open and answered
	Version     string    // of the configuration in force; "" if there is none yet
	LastApplied time.Time // when it was applied; zero if there is none yet
	LastError   string    // why the last update was refused or the last connection lost; "" if all is well
}

// Client keeps one proxy's configuration up to date.
type Client struct {
	opts ClientOptions // read-only

	mu     sync.Mutex
	status ClientStatus // guarded by mu

	// Only touched by Run.
	store    *store
	apply    func(*mesh.NodeConfig) error
	good     *mesh.NodeConfig // in force; nil if none is
	tried    bool             // the last good configuration was tried
	unsaved  bool             // good is newer than the last good file
	failing  bool             // the last attempt to connect failed
	savedSum [sha256.Size]byte
}

// NewClient makes a Client; Run starts it.
func NewClient(o ClientOptions) (*Client, error) {
	if o.Target == "" || o.NodeID == "" || o.Log == nil {
		return nil, errors.New("xds client needs a target, a node id and a logger")
	}
	if o.MaxBackoff == 0 {
		o.MaxBackoff = defaultMaxBackoff
	}
	return &Client{opts: o, store: newStore()}, nil
}

// Status reports the state of the client.
func (c *Client) Status() ClientStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

func (c *Client) note(change func(s *ClientStatus)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.status)
}

// Run receives configuration until ctx ends, and then returns nil. It calls
// apply, never twice at once, with each new NodeConfig: once for all resources
// that arrive together. An error of apply refuses the update: the control plane
// is told, and the configuration before it stays in force. Lists that did not
// change since the last call are the same memory as then.
func (c *Client) Run(ctx context.Context, apply func(*mesh.NodeConfig) error) error {
	c.apply = apply
	c.load()
	pause := firstBackoff
	for ctx.Err() == nil {
		if c.attempt(ctx) {
			pause = firstBackoff
		}
		c.wait(ctx, pause/2+rand.N(pause/2+1)) //nolint:gosec // jitter is no secret
		pause = min(pause*2, c.opts.MaxBackoff)
	}
	c.note(func(s *ClientStatus) { s.Connected = false })
	c.save()
	return nil
}

// attempt is one connection to the control plane, from beginning to end. useful
// tells that it brought something.
func (c *Client) attempt(ctx context.Context) (useful bool) {
	useful, err := c.session(ctx)
	c.store.rollback()
	if ctx.Err() != nil {
		return useful
	}
	c.note(func(s *ClientStatus) { s.Connected, s.LastError = false, err.Error() })
	if refused := c.fallBack(); refused != nil {
		c.opts.Log.Error("start without a configuration", "error", refused)
	}
	if useful || !c.failing {
		c.opts.Log.Warn("no connection to the control plane, going on with the last configuration", "error", err)
	}
	c.failing = !useful
	return useful
}

// wait pauses and saves what is to be saved.
func (c *Client) wait(ctx context.Context, pause time.Duration) {
	c.save()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// load reads the last good configuration; it is not in force yet.
func (c *Client) load() {
	if c.opts.LastGood == "" {
		c.tried = true
		return
	}
	s, sum, err := loadLastGood(c.opts.LastGood)
	if err != nil {
		c.opts.Log.Error("last configuration cannot be used", "error", err)
	}
	if s == nil {
		c.tried = true
		return
	}
	s.commit()
	c.store, c.savedSum = s, sum
}

// fallBack puts the last good configuration in force if there is no other. An
// error is that it is refused: it is forgotten then, and a stream that told the
// control plane of it must end.
func (c *Client) fallBack() error {
	if c.tried {
		return nil
	}
	c.tried = true
	if c.good != nil {
		return nil
	}
	cfg := c.store.config()
	if err := c.apply(cfg); err != nil {
		c.store = newStore()
		return fmt.Errorf("last configuration is refused: %w", err)
	}
	c.opts.Log.Info("control plane cannot be reached, starting with the last configuration")
	c.inForce(cfg)
	return nil
}

func (c *Client) inForce(cfg *mesh.NodeConfig) {
	c.good = cfg
	c.store.commit()
	version := c.store.inForce().String()
	c.note(func(s *ClientStatus) { s.Version, s.LastApplied = version, time.Now() })
}

// save writes the last good file if the configuration changed.
func (c *Client) save() {
	if !c.unsaved || c.opts.LastGood == "" {
		return
	}
	c.unsaved = false
	sum, err := saveLastGood(c.opts.LastGood, c.good, c.store.committed, c.savedSum)
	if err != nil {
		c.opts.Log.Warn("last configuration is not saved", "error", err)
		return
	}
	c.savedSum = sum
}
