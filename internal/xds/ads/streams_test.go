package ads_test

import (
	"context"
	"strings"
	"testing"

	_ "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3" // to read what is sent
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3" // the same
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3" // the same
	_ "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"    // the same
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/vitrine-mesh/vitrine/internal/xds"
)

// generated connects with generated code, as Envoy or grpc would.
func generated(t *testing.T, socket string) discoverypb.AggregatedDiscoveryServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return discoverypb.NewAggregatedDiscoveryServiceClient(conn)
}

// deltaStream is a client of the delta protocol, in generated code.
type deltaStream struct {
	t      *testing.T
	node   *corepb.Node // nil once it was said
	stream discoverypb.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	last   *discoverypb.DeltaDiscoveryResponse
}

func newDeltaStream(t *testing.T, socket, node string) *deltaStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	s, err := generated(t, socket).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &deltaStream{t: t, node: &corepb.Node{Id: node}, stream: s}
}

func (d *deltaStream) ask(r *discoverypb.DeltaDiscoveryRequest) {
	d.t.Helper()
	r.Node, d.node = d.node, nil
	if err := d.stream.Send(r); err != nil {
		d.t.Fatal(err)
	}
}

func (d *deltaStream) ack() {
	d.t.Helper()
	d.ask(&discoverypb.DeltaDiscoveryRequest{TypeUrl: d.last.GetTypeUrl(), ResponseNonce: d.last.GetNonce()})
}

func (d *deltaStream) receive() *discoverypb.DeltaDiscoveryResponse {
	d.t.Helper()
	var err error
	if d.last, err = d.stream.Recv(); err != nil {
		d.t.Fatal(err)
	}
	return d.last
}

// expect receives a response: its type and the names that come and go.
func (d *deltaStream) expect(want string) {
	d.t.Helper()
	m := d.receive()
	k, _ := xds.KindOf(m.GetTypeUrl())
	got := []string{k.String()}
	for _, r := range m.GetResources() {
		got = append(got, "+"+strings.TrimSuffix(r.GetName(), ".default.svc.cluster.local"))
	}
	for _, name := range m.GetRemovedResources() {
		got = append(got, "-"+strings.TrimSuffix(name, ".default.svc.cluster.local"))
	}
	if got := strings.Join(got, " "); got != want {
		d.t.Fatalf("got %q, want %q", got, want)
	}
}

// worldStream is a client of the older protocol, in generated code.
type worldStream struct {
	t      *testing.T
	stream discoverypb.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	names  map[string][]string // what was asked for by name, by type
	last   *discoverypb.DiscoveryResponse
}

func newWorldStream(t *testing.T, socket string) *worldStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	s, err := generated(t, socket).StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &worldStream{t: t, stream: s, names: map[string][]string{}}
}

func (w *worldStream) ask(r *discoverypb.DiscoveryRequest) {
	w.t.Helper()
	w.names[r.GetTypeUrl()] = r.GetResourceNames()
	if err := w.stream.Send(r); err != nil {
		w.t.Fatal(err)
	}
}

func (w *worldStream) ack() {
	w.t.Helper()
	w.ask(&discoverypb.DiscoveryRequest{
		TypeUrl: w.last.GetTypeUrl(), ResponseNonce: w.last.GetNonce(), VersionInfo: w.last.GetVersionInfo(),
		ResourceNames: w.names[w.last.GetTypeUrl()],
	})
}

func (w *worldStream) receive() *discoverypb.DiscoveryResponse {
	w.t.Helper()
	var err error
	if w.last, err = w.stream.Recv(); err != nil {
		w.t.Fatal(err)
	}
	return w.last
}

// expect receives a response: its type and the names of its resources.
func (w *worldStream) expect(want string) {
	w.t.Helper()
	w.receive()
	k, _ := xds.KindOf(w.last.GetTypeUrl())
	got := []string{k.String()}
	for _, r := range w.last.GetResources() {
		m, err := r.UnmarshalNew()
		if err != nil {
			w.t.Fatal(err)
		}
		name := ""
		switch m := m.(type) {
		case interface{ GetClusterName() string }:
			name = m.GetClusterName()
		case interface{ GetName() string }:
			name = m.GetName()
		}
		name = strings.TrimPrefix(name, "outbound|80||")
		got = append(got, strings.TrimSuffix(name, ".default.svc.cluster.local"))
	}
	if got := strings.Join(got, " "); got != want {
		w.t.Fatalf("got %q, want %q", got, want)
	}
}
