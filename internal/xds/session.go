package xds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/xds/envoy"
)

const (
	// settleAfter is how long the client waits for more after a response of a
	// control plane that does not tell the fingerprint of its whole
	// configuration; settleAtMost bounds that wait. One that tells it is given
	// restAfter to send the rest, however busy the machine is.
	settleAfter  = 20 * time.Millisecond
	settleAtMost = 500 * time.Millisecond
	restAfter    = 2 * time.Second
	// lastGoodAfter is how long a starting client waits for a control plane
	// that can be reached before it falls back on the last good configuration.
	lastGoodAfter = 500 * time.Millisecond
	// saveAfter gathers changes before they are written to the last good file.
	saveAfter = time.Second
)

// session is one stream to the control plane. useful tells that it answered.
func (c *Client) session(ctx context.Context) (useful bool, err error) {
	stream, err := dial(ctx, c.opts.Target, "/"+envoy.ADSService+"/"+envoy.MethodDelta)
	if err != nil {
		return false, err
	}
	stop := context.AfterFunc(ctx, stream.close)
	defer stop()
	defer stream.close()
	incoming := make(chan *envoy.DeltaDiscoveryResponse)
	quit := make(chan struct{})
	var readErr error
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(incoming)
		for {
			m := &envoy.DeltaDiscoveryResponse{}
			if readErr = stream.receive(m); readErr != nil {
				return
			}
			select {
			case incoming <- m:
			case <-quit:
				return
			}
		}
	})
	s := &session{client: c, stream: stream}
	err = s.run(incoming)
	close(quit)
	stream.close()
	reader.Wait()
	if err == nil {
		err = readErr
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("control plane ended the stream")
	}
	return s.answered, err
}

// subscribe asks for everything of every Kind, and says what is there already.
func (c *Client) subscribe(stream *rpc) error {
	node := &envoy.Node{ID: c.opts.NodeID, Metadata: &envoy.Struct{Fields: map[string]*envoy.Value{}}}
	for name, value := range c.opts.Metadata {
		node.Metadata.Fields[name] = envoy.StringValue(value)
	}
	for k := range Kinds {
		err := stream.send(&envoy.DeltaDiscoveryRequest{
			Node: node, TypeURL: k.TypeURL(), InitialResourceVersions: c.store.versions(k),
		})
		if err != nil {
			return err
		}
		node = nil // the first request of a stream names the node
	}
	return nil
}

// session is the state of one stream.
type session struct {
	client   *Client
	stream   *rpc
	answered bool
	pending  []reply // responses that are not answered yet
	since    time.Time
}

// reply is the answer owed to one response.
type reply struct {
	typeURL string
	nonce   string
	err     error // why it is refused
}

// run handles responses until the stream ends. An error is one of ours; nil
// means that reading failed.
func (s *session) run(incoming <-chan *envoy.DeltaDiscoveryResponse) error {
	c := s.client
	c.store.forgetRefused()
	if err := s.begin(); err != nil {
		return err
	}
	settle, late, save := stopped(), stopped(), stopped()
	defer settle.Stop()
	defer late.Stop()
	defer save.Stop()
	late.Reset(lastGoodAfter)
	for {
		select {
		case m, ok := <-incoming:
			if !ok {
				return nil
			}
			if complete := s.take(m); !complete {
				settle.Reset(s.patience(m))
				continue
			}
			settle.Stop()
		case <-settle.C:
		case <-late.C:
			if err := c.fallBack(); err != nil {
				return err
			}
			continue
		case <-save.C:
			c.save()
			continue
		}
		late.Stop()
		if err := s.settle(); err != nil {
			return err
		}
		if c.unsaved {
			save.Reset(saveAfter)
		}
	}
}

// begin subscribes. A control plane that accepts but does not read must not hold up
// the start of a proxy; once the last good configuration was tried, there is time.
func (s *session) begin() error {
	c := s.client
	if c.tried {
		return c.subscribe(s.stream)
	}
	giveUp := time.AfterFunc(lastGoodAfter, s.stream.close)
	err := c.subscribe(s.stream)
	if late := !giveUp.Stop(); late && err != nil {
		return fmt.Errorf("control plane does not read: %w", err)
	}
	return err
}

// patience is how long to wait for more after m.
func (s *session) patience(m *envoy.DeltaDiscoveryResponse) time.Duration {
	if strings.HasPrefix(m.SystemVersionInfo, fingerprintPrefix) {
		return restAfter
	}
	return min(settleAfter, max(0, settleAtMost-time.Since(s.since)))
}

func stopped() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// take stores the resources of a response. It reports whether everything that
// the control plane has for this proxy is now there.
func (s *session) take(m *envoy.DeltaDiscoveryResponse) (complete bool) {
	store := s.client.store
	if !s.answered {
		s.answered = true
		s.client.note(func(st *ClientStatus) { st.Connected = true })
	}
	if len(s.pending) == 0 {
		s.since = time.Now()
	}
	r := reply{typeURL: m.TypeURL, nonce: m.Nonce}
	k, ok := KindOf(m.TypeURL)
	if !ok {
		r.err = fmt.Errorf("resource type %q is not supported", m.TypeURL)
	} else {
		var errs []error
		for _, res := range m.Resources {
			if res.Resource == nil || res.Resource.TypeURL != m.TypeURL {
				errs = append(errs, fmt.Errorf("%v %q: content is missing or of another type", k, res.Name))
				continue
			}
			errs = append(errs, store.put(k, res.Name, res.Version, res.Resource.Value))
		}
		for _, name := range m.RemovedResources {
			store.remove(k, name)
		}
		r.err = errors.Join(errs...)
	}
	s.pending = append(s.pending, r)
	return m.SystemVersionInfo == store.seen.String()
}

// settle puts what arrived in force and answers all responses.
func (s *session) settle() error {
	c := s.client
	var refused error
	if c.store.dirty() || c.good == nil {
		cfg := c.store.config()
		if refused = c.apply(cfg); refused == nil {
			c.inForce(cfg)
			c.unsaved = true
		}
	} else {
		c.store.commit()
	}
	c.tried = true
	var last error
	answers := make([]*envoy.DeltaDiscoveryRequest, len(s.pending))
	for i, r := range s.pending {
		m := &envoy.DeltaDiscoveryRequest{TypeURL: r.typeURL, ResponseNonce: r.nonce}
		if err := errors.Join(r.err, refused); err != nil {
			last = err
			code := int32(RefusedWhole)
			if r.err != nil {
				code = refusedResource
			}
			m.ErrorDetail = &envoy.Status{Code: code, Message: cut(err.Error())}
		}
		answers[i] = m
	}
	s.pending = nil
	if last != nil {
		c.opts.Log.Error("configuration is refused, going on with the one before", "error", last)
	} else {
		last = c.store.refused() // by an earlier response, and still missing
	}
	// Before the answers: who reads of a refusal at the control plane finds it
	// here too.
	c.note(func(st *ClientStatus) {
		st.LastError = ""
		if last != nil {
			st.LastError = last.Error()
		}
	})
	for _, m := range answers {
		if err := s.stream.send(m); err != nil {
			return err
		}
	}
	return nil
}

// The gRPC codes with which a Client refuses a response.
const (
	// refusedResource is INVALID_ARGUMENT: the message names resources of the
	// response that are bad; the others count.
	refusedResource = 3
	// RefusedWhole is FAILED_PRECONDITION: the resources are understood, but the
	// proxy cannot run with all of them together. It tries again with what comes
	// next, so an acceptance of any later response is one of this response too.
	RefusedWhole = 9
)

// cut bounds an error text that goes to the control plane.
func cut(s string) string {
	const limit = 4096
	if len(s) <= limit {
		return s
	}
	return s[:limit] + " …"
}
