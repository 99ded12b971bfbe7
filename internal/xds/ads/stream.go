package ads

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vitrine-mesh/vitrine/internal/xds"
	"github.com/vitrine-mesh/vitrine/internal/xds/envoy"
)

// request is one request of either protocol.
type request struct {
	node    *envoy.Node
	typeURL string
	nonce   string // of the response that this answers; "" for none
	refusal *envoy.Status

	// Incremental only.
	subscribe, unsubscribe []string
	initial                map[string]string

	// State of the world only: the complete list of names.
	names []string
}

func (s *Server) serveDelta(_ any, stream grpc.ServerStream) error {
	return s.serve(stream, true, func() (*request, error) {
		m := &envoy.DeltaDiscoveryRequest{}
		err := stream.RecvMsg(m)
		return &request{
			node: m.Node, typeURL: m.TypeURL, nonce: m.ResponseNonce, refusal: m.ErrorDetail,
			subscribe: m.Subscribe, unsubscribe: m.Unsubscribe, initial: m.InitialResourceVersions,
		}, err
	})
}

func (s *Server) serveWorld(_ any, stream grpc.ServerStream) error {
	return s.serve(stream, false, func() (*request, error) {
		m := &envoy.DiscoveryRequest{}
		err := stream.RecvMsg(m)
		return &request{
			node: m.Node, typeURL: m.TypeURL, nonce: m.ResponseNonce, refusal: m.ErrorDetail, names: m.ResourceNames,
		}, err
	})
}

// serve handles one stream: a goroutine that reads, one that writes, and this
// one, which decides and never blocks on the proxy. When serve returns, grpc
// ends the stream, and with it the other two.
func (s *Server) serve(stream grpc.ServerStream, delta bool, receive func() (*request, error)) error {
	ctx := stream.Context()
	p := newProxy(s, delta)
	s.add(p)
	defer s.remove(p)
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	requests, readEnd := read(ctx, receive)
	out := make(chan envoy.Message)
	defer close(out)
	written := write(stream, out)

	var sent response // the last one given to the writer
	// Time is counted in looks: when this process was stopped, the proxy is not to blame.
	const patience = 4
	looks := 0 // without progress
	stuck := time.NewTicker(s.opts.StuckAfter / patience)
	defer stuck.Stop()
	warmed := time.NewTimer(warmTime) // runs while something waits for it
	warmed.Stop()
	defer warmed.Stop()
	for {
		var next envoy.Message
		var ready chan<- envoy.Message
		if len(p.queue) > 0 && !p.writing {
			next, ready = p.queue[0].message, out
		}
		select {
		case r := <-requests:
			looks = 0
			if err := p.handle(r); err != nil {
				return err
			}
		case <-p.wake:
			p.outdated = true
		case ready <- next:
			sent, p.queue[0] = p.queue[0], response{}
			p.queue, p.writing = p.queue[1:], true
			continue
		case err := <-written:
			if err != nil {
				return err
			}
			p.writing, looks = false, 0
			s.metrics.sent(&sent, time.Now())
		case err := <-readEnd:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-stuck.C:
			if p.owed() == 0 {
				looks = 0
				continue
			}
			if looks++; looks > patience { // the first may come at once
				s.metrics.stuck.Inc()
				s.opts.Log.Warn("proxy does not answer, its stream is closed", "node", p.node, "waited", s.opts.StuckAfter)
				return status.Error(codes.DeadlineExceeded, "no answer to a response")
			}
			continue
		case <-warmed.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		p.plan()
		if len(p.warm.clusters) > 0 {
			warmed.Reset(time.Until(p.warm.since.Add(warmTime)))
		}
	}
}

// read receives requests until the stream ends; the reason comes last.
func read(ctx context.Context, receive func() (*request, error)) (<-chan *request, <-chan error) {
	requests := make(chan *request)
	end := make(chan error, 1)
	go func() {
		for {
			r, err := receive()
			if err != nil {
				end <- err
				return
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	return requests, end
}

// write sends what comes from out and reports each result, until out is closed
// or a message could not be sent.
func write(stream grpc.ServerStream, out <-chan envoy.Message) <-chan error {
	written := make(chan error, 1)
	go func() {
		for m := range out {
			err := stream.SendMsg(m)
			written <- err
			if err != nil {
				return
			}
		}
	}()
	return written
}

// errNone is that the source has no configuration for a proxy yet.
var errNone = errors.New("no configuration yet")

// fetch computes the proxy's resources from the newest configuration. An error
// that is not errNone is a fault of the configuration.
func (s *Server) fetch(node string) (*xds.Resources, error) {
	cfg, err := s.opts.Config(node)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNone, err)
	}
	resources, err := s.encoder.Encode(cfg)
	if err != nil {
		s.metrics.errors.Inc()
		return nil, err
	}
	return resources, nil
}
