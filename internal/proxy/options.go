package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

// Options configure a Proxy. Zero durations and numbers mean the default.
type Options struct {
	// Self is the workload whose proxy this is. Connections to peers come from
	// Self.IP; without one (a proxy alone, in benchmarks) the kernel chooses.
	Self mesh.Workload
	// Net is the network byte of the mesh IPs (mesh.IP).
	Net uint8
	// Recorder takes every request and connection.
	Recorder *telemetry.Recorder
	// DialProgram connects to the workload's program so that it sees source as its
	// client: at target, or, if that is a port without an address, wherever the program
	// listens on that port. nil dials from here, 127.0.0.1 for no address, and source is
	// lost.
	DialProgram func(ctx context.Context, source netip.Addr, target netip.AddrPort) (net.Conn, error)
	// CasePID is a process in the network namespace of the programs that
	// ServeOutbound serves; 0 is this one. There the proxy looks whether a client
	// that half-closed its connection still waits for a response.
	CasePID int
	// Log takes what an operator should know; nil discards it.
	Log *slog.Logger

	// ConnectTimeout is for clusters that set none. Default 10 s (Istio's).
	ConnectTimeout time.Duration
	// AcquaintTime is how long a call from an address of the mesh waits for the
	// configuration that names the caller. Default 1 s.
	AcquaintTime time.Duration
	// HeaderTimeout is how long the head of a request may take from its first
	// byte. Default 60 s.
	HeaderTimeout time.Duration
	// IdleTimeout is how long a client's connection may stay open without a
	// request. Default 1 h (Envoy's).
	IdleTimeout time.Duration
	// BodyIdleTimeout is how long a message may make no progress in either
	// direction once it began. It does not limit waiting for a response or an
	// upgraded connection. Default 5 min (Envoy's stream_idle_timeout).
	BodyIdleTimeout time.Duration
	// PeerIdleTimeout is how long an unused connection to another proxy is
	// kept. Default 60 s.
	PeerIdleTimeout time.Duration
	// ProgramIdleTimeout is the same for connections to programs and to
	// addresses outside the mesh. Default 4 s: below the 5 s of Node.js and
	// uvicorn, so that a program hardly ever closes what is about to be used.
	ProgramIdleTimeout time.Duration
	// MaxIdlePerEndpoint is how many unused connections are kept for one
	// endpoint. Default 256.
	MaxIdlePerEndpoint int
	// MaxInbound is how many inbound connections may be open; further ones are
	// closed at once, and counted. The default leaves a quarter of the file
	// descriptors that this process may open, and some more, for everything else:
	// what the program calls, the admin, the control plane.
	MaxInbound int
	// HalfCloseTimeout is how long an opaque connection may stay half closed
	// without a byte. Default 1 h.
	HalfCloseTimeout time.Duration
	// TCPIdleTimeout is how long an opaque connection may carry no byte at all.
	// Default 1 h (Envoy's).
	TCPIdleTimeout time.Duration
	// DrainIdleGrace is how long Drain leaves idle client connections open, so
	// that peers can take this proxy out of use before it closes them. Default 2 s.
	DrainIdleGrace time.Duration
}

func (o *Options) setDefaults() error {
	if o.Recorder == nil {
		return errors.New("proxy: a telemetry recorder is needed")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
		name     string
	}{
		{&o.ConnectTimeout, 10 * time.Second, "connect timeout"},
		{&o.AcquaintTime, time.Second, "acquaint time"},
		{&o.HeaderTimeout, time.Minute, "header timeout"},
		{&o.IdleTimeout, time.Hour, "idle timeout"},
		{&o.BodyIdleTimeout, 5 * time.Minute, "body idle timeout"},
		{&o.PeerIdleTimeout, time.Minute, "peer idle timeout"},
		{&o.ProgramIdleTimeout, 4 * time.Second, "program idle timeout"},
		{&o.HalfCloseTimeout, time.Hour, "half-close timeout"},
		{&o.TCPIdleTimeout, time.Hour, "TCP idle timeout"},
		{&o.DrainIdleGrace, 2 * time.Second, "drain idle grace"},
	} {
		if *d.value < 0 {
			return errors.New("proxy: " + d.name + " is negative")
		}
		if *d.value == 0 {
			*d.value = d.fallback
		}
	}
	if o.MaxIdlePerEndpoint <= 0 {
		o.MaxIdlePerEndpoint = 256
	}
	if o.MaxInbound <= 0 {
		o.MaxInbound = defaultMaxInbound()
	}
	return nil
}

// defaultMaxInbound is three quarters of the descriptors, at two for each
// connection: one to the client and one to the program.
func defaultMaxInbound() int {
	const reserve, fewest, most = 128, 16, 1 << 20
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Cur > 4*most {
		return most
	}
	return max((int(limit.Cur)-reserve)*3/4/2, fewest)
}
