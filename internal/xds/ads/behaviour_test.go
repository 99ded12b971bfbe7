package ads_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/vitrine-mesh/vitrine/internal/xds"
	"github.com/vitrine-mesh/vitrine/internal/xds/ads"
)

// typeOf finds the state of one type of the only proxy; what is not there is not
// in sync.
func typeOf(p *plane, k xds.Kind) ads.TypeStatus {
	for _, st := range p.Status() {
		for _, ts := range st.Types {
			if ts.Kind == k {
				return ts
			}
		}
	}
	return ads.TypeStatus{LastError: "not subscribed to"}
}

// metricsOf is what a server exposes.
func metricsOf(t *testing.T, p *plane) string {
	t.Helper()
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(p.Metrics(), promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if answer.Code != http.StatusOK {
		t.Fatal(answer.Body)
	}
	return answer.Body.String()
}

// TestPushTimes: each response written is timed, and each announced change of
// each proxy.
func TestPushTimes(t *testing.T) {
	p, socket := servePlane(t, world(2), 0)
	n := startClient(t, socket, "node", "")
	n.wants(t, world(2))
	eventually(t, "accepted", func() bool { ts := typeOf(p, xds.RDS); return ts.Acked != "" && ts.InSync() })
	if text := metricsOf(t, p); !strings.Contains(text, "pilot_proxy_queue_time_count 0\n") {
		t.Error("the first configuration counts as an announced change")
	}
	p.set(world(3))
	n.wants(t, world(3))
	eventually(t, "timed", func() bool {
		text := metricsOf(t, p)
		return strings.Contains(text, "pilot_proxy_queue_time_count 1\n") &&
			strings.Contains(text, `pilot_xds_push_time_count{type="eds"} 2`+"\n")
	})
}

// TestRefusedConfiguration: apply refuses; the proxy keeps the one before, the
// control plane shows why, and the next good one is accepted.
func TestRefusedConfiguration(t *testing.T) {
	p, socket := servePlane(t, world(2), 0)
	lastGood := filepath.Join(t.TempDir(), "last")
	n := startClient(t, socket, "node", lastGood)
	n.wants(t, world(2))
	eventually(t, "accepted", func() bool { ts := typeOf(p, xds.RDS); return ts.Acked != "" && ts.InSync() })
	good := n.Status().Version

	refusal := errors.New("listener 0.0.0.0_80: no such thing")
	n.refuse.Store(&refusal)
	p.set(world(3))
	n.wants(t, world(3))
	eventually(t, "the refusal shows", func() bool { return typeOf(p, xds.RDS).LastError == refusal.Error() })
	if ts := typeOf(p, xds.RDS); ts.InSync() || ts.Acked != good || ts.ErrorAt.IsZero() {
		t.Errorf("status of routes %+v, want %s accepted and the error", ts, good)
	}
	if got := n.Status(); got.Version != good || got.LastError != refusal.Error() || !got.Connected {
		t.Errorf("client status %+v, want version %s and the error", got, good)
	}
	if want := `pilot_total_xds_rejects{type="rds"} 1` + "\n"; !strings.Contains(metricsOf(t, p), want) {
		t.Errorf("metrics lack %q:\n%s", want, metricsOf(t, p))
	}
	n.refuse.Store(nil)
	p.set(world(4))
	n.wants(t, world(4))
	eventually(t, "accepted again", func() bool { ts := typeOf(p, xds.RDS); return ts.InSync() })

	refusal = errors.New("again")
	n.refuse.Store(&refusal)
	p.set(world(5))
	n.wants(t, world(5))
	n.stop() // saves
	n = startClient(t, socketPath(t), "node", lastGood)
	n.wants(t, world(4)) // the last good one, not the last one
}

// foreign is a control plane made of generated code.
type foreign struct {
	discoverypb.UnimplementedAggregatedDiscoveryServiceServer
	serve func(discoverypb.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error
}

func (f *foreign) DeltaAggregatedResources(s discoverypb.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return f.serve(s)
}

func serveForeign(t *testing.T, socket string, f *foreign) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	discoverypb.RegisterAggregatedDiscoveryServiceServer(server, f)
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(ln) })
	t.Cleanup(func() { server.Stop(); done.Wait() })
}

// forgetfulPlane serves no configuration to a client, and did before: lastGood
// is where that client kept world(2).
func forgetfulPlane(t *testing.T) (p *plane, socket, lastGood string) {
	t.Helper()
	p, socket = servePlane(t, world(2), 0)
	lastGood = filepath.Join(t.TempDir(), "last")
	n := startClient(t, socket, "node", lastGood)
	n.wants(t, world(2))
	n.stop()
	p.set(nil)
	return p, socket, lastGood
}

// TestRefusedLastGood: the last good configuration is refused while a stream is
// open, on which the control plane was told that the proxy has it. The proxy
// asks for everything anew, and does not end up with nothing.
func TestRefusedLastGood(t *testing.T) {
	p, socket, lastGood := forgetfulPlane(t)
	refusal := errors.New("port 80 is taken")
	n := startRefusingClient(t, socket, "node", lastGood, &refusal)
	n.wants(t, world(2)) // the last good one, refused
	n.refuse.Store(nil)
	p.set(world(2))
	n.wants(t, world(2))
	eventually(t, "in sync", func() bool { st := n.Status(); return st.LastError == "" && st.Version != "" })
}

// TestOneBadResource: of a response with a bad resource the others count, and
// its status tells of it until it comes in a good version.
func TestOneBadResource(t *testing.T) {
	socket := socketPath(t)
	answers := make(chan *discoverypb.DeltaDiscoveryRequest, 100)
	seen := make(chan struct{})
	resources, err := xds.Encode(world(3))
	if err != nil {
		t.Fatal(err)
	}
	serveForeign(t, socket, &foreign{serve: func(s discoverypb.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
		m := &discoverypb.DeltaDiscoveryResponse{TypeUrl: xds.CDS.TypeURL(), Nonce: "x"}
		for i, r := range resources[xds.CDS] {
			body := r.Body
			if i == 2 {
				body = append(slices.Clone(body), 0xfa, 0x3f, 0) // field 1023
			}
			m.Resources = append(m.Resources, &discoverypb.Resource{
				Name: r.Name, Version: r.Version, Resource: &anypb.Any{TypeUrl: m.GetTypeUrl(), Value: body},
			})
		}
		if err := s.Send(m); err != nil {
			return err
		}
		for {
			r, err := s.Recv()
			if err != nil {
				return nil //nolint:nilerr // the client went away
			}
			answers <- r
			var more discoverypb.DeltaDiscoveryResponse
			switch r.GetResponseNonce() {
			case "x": // another resource is good
				select {
				case <-seen:
				case <-s.Context().Done():
					return nil
				}
				more.Nonce, more.Resources = "y", m.GetResources()[:1]
				more.Resources[0].Version = "newer"
			case "y": // and then this one, too
				r := resources[xds.CDS][2]
				more.Nonce, more.Resources = "z", []*discoverypb.Resource{{
					Name: r.Name, Version: r.Version + "b", Resource: &anypb.Any{TypeUrl: m.GetTypeUrl(), Value: r.Body},
				}}
			default:
				continue
			}
			more.TypeUrl = m.GetTypeUrl()
			if err := s.Send(&more); err != nil {
				return err
			}
		}
	}})
	n := startClient(t, socket, "node", "")
	want := world(3)
	bad := want.Clusters[2].Name
	if diff := cmp.Diff(slices.Delete(want.Clusters, 2, 3), n.next(t).Clusters, byValue); diff != "" {
		t.Errorf("clusters (-want +got):\n%s", diff)
	}
	var inForce xds.Fingerprint
	for _, i := range []int{0, 1, 3} {
		r := &resources[xds.CDS][i]
		inForce.Add(xds.CDS, r.Name, r.Version)
	}
	eventually(t, "the version is that of what counts", func() bool { return n.Status().Version == inForce.String() })
	close(seen)
	refusal := fmt.Sprintf("cds %q: envoy.config.cluster.v3.Cluster: field 1023 is not supported", bad)
	for r := range answers {
		switch got := r.GetErrorDetail().GetMessage(); r.GetResponseNonce() {
		case "x":
			if got != refusal {
				t.Errorf("refused with %q, want %q", got, refusal)
			}
		case "y":
			if got != "" {
				t.Errorf("what is good is refused with %q", got)
			}
		case "z":
			eventually(t, "all is well", func() bool { return n.Status().LastError == "" })
			return
		}
	}
}

// TestServerRestart: the client goes on, comes back, and nothing is sent twice.
func TestServerRestart(t *testing.T) {
	socket := socketPath(t)
	p := newPlane(t, world(3), 0)
	stop := p.serve(t, socket)
	n := startClient(t, socket, "node", "")
	n.wants(t, world(3))
	stop()
	eventually(t, "the loss shows", func() bool { st := n.Status(); return !st.Connected && st.LastError != "" })
	if st := n.Status(); st.Version == "" {
		t.Errorf("status %+v after the loss, want the version in force", st)
	}
	p = newPlane(t, world(3), 0)
	p.serve(t, socket)
	eventually(t, "connected again", func() bool { return n.Status().Connected })
	eventually(t, "in sync", func() bool { ts := typeOf(p, xds.NDS); return ts.Acked != "" && ts.InSync() })
	if want := `pilot_xds_config_size_bytes_sum{type="cds"} 0` + "\n"; !strings.Contains(metricsOf(t, p), want) {
		t.Errorf("clusters were sent again: metrics lack %q:\n%s", want, metricsOf(t, p))
	}
	p.set(world(4))
	n.wants(t, world(4)) // and not world(3) again
}

// TestStartWithoutControlPlane: the last good configuration serves, and the
// control plane then sends only what changed.
func TestStartWithoutControlPlane(t *testing.T) {
	socket, lastGood := socketPath(t), filepath.Join(t.TempDir(), "last")
	p := newPlane(t, world(3), 0)
	stop := p.serve(t, socket)
	n := startClient(t, socket, "node", lastGood)
	n.wants(t, world(3))
	n.stop()
	stop()

	n = startClient(t, socket, "node", lastGood)
	n.wants(t, world(3))
	eventually(t, "not connected, with a version", func() bool { st := n.Status(); return !st.Connected && st.Version != "" })
	p = newPlane(t, world(4), 0)
	p.serve(t, socket)
	n.wants(t, world(4))
	n.stop()

	if err := os.WriteFile(lastGood, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	n = startClient(t, socket, "node", lastGood)
	n.wants(t, world(4)) // from the control plane
}

// TestControlPlaneDoesNotRead: one that is stopped while it accepts does not hold up
// the start of a proxy that has more to say than fits.
func TestControlPlaneDoesNotRead(t *testing.T) {
	socket, lastGood := socketPath(t), filepath.Join(t.TempDir(), "last")
	p := newPlane(t, world(1000), 0)
	stop := p.serve(t, socket)
	n := startClient(t, socket, "node", lastGood)
	n.wants(t, world(1000))
	n.stop()
	stop()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() // nobody accepts: the kernel does
	n = startClient(t, socket, "node", lastGood)
	select {
	case <-n.applied:
	case <-time.NewTimer(20 * time.Second).C: // its pings notice after 30 s
		t.Error("the last configuration is not in force after 20 s")
	}
}

// TestConnectedButUnknown: the control plane is there but does not know the
// proxy yet; the last good configuration serves meanwhile.
func TestConnectedButUnknown(t *testing.T) {
	p, socket, lastGood := forgetfulPlane(t)
	n := startClient(t, socket, "node", lastGood)
	n.wants(t, world(2))
	p.set(world(3))
	n.wants(t, world(3))
}

// TestConverged: who answers is waited for, and who does not is named.
func TestConverged(t *testing.T) {
	p, socket := servePlane(t, world(5), 0)
	n := startClient(t, socket, "healthy", "")
	n.wants(t, world(5))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i := range 3 {
		p.set(world(6 + i))
		if err := p.Converged(ctx); err != nil {
			t.Fatal(err)
		}
		for _, st := range p.Status() {
			for _, ty := range st.Types {
				if !ty.InSync() || ty.Kind == xds.NDS && ty.Resources != 6+i {
					t.Errorf("change %d: %+v", i, ty)
				}
			}
		}
	}
	d := newDeltaStream(t, socket, "deaf")
	d.ask(&discoverypb.DeltaDiscoveryRequest{TypeUrl: xds.CDS.TypeURL()})
	d.receive()
	soon, over := context.WithTimeout(ctx, 50*time.Millisecond)
	defer over()
	err := p.Converged(soon)
	if want := "wait for proxies deaf: context deadline exceeded"; err == nil || err.Error() != want {
		t.Errorf("beside one that does not answer: %v, want %s", err, want)
	}
	if got := p.Waiting(); !slices.Equal(got, []string{"deaf"}) {
		t.Errorf("waiting for %q, want the deaf one", got)
	}
	d.ack()
	if err := p.Converged(ctx); err != nil {
		t.Errorf("after its answer: %v", err)
	}
	if got := p.Waiting(); len(got) > 0 {
		t.Errorf("waiting for %q, want nobody", got)
	}
	p.set(world(20))
	d.receive() // and does not answer, but goes
	left := make(chan error, 1)
	go func() { left <- d.stream.CloseSend() }()
	if err := p.Converged(ctx); err != nil {
		t.Errorf("when it has gone: %v", err)
	}
	if err := <-left; err != nil {
		t.Error(err)
	}
}
