package telemetry

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files in testdata")

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, diff)
	}
}

func catalogue() *mesh.Workload {
	return &mesh.Workload{
		Name: "catalogue-v2-7", Namespace: "shop", Owner: "catalogue-v2", Cluster: "laptop",
		Labels: map[string]string{
			"app.kubernetes.io/name": "catalogue", "app": "ignored",
			"app.kubernetes.io/version": "v2", "version": "ignored",
		},
	}
}

var (
	catalogueService = mesh.ServiceRef{Host: "catalogue.shop.svc.cluster.local", Name: "catalogue", Namespace: "shop"}
	cartService      = mesh.ServiceRef{Host: "cart.shop.svc.cluster.local", Name: "cart", Namespace: "shop"}
)

const (
	spiffeCart      = "spiffe://cluster.local/ns/shop/sa/cart"
	spiffeCatalogue = "spiffe://cluster.local/ns/other/sa/catalogue"
)

// request finishes one HTTP request on the edge of k.
func request(r *Recorder, k EdgeKey, code int, f Flags) {
	rec := r.Begin(k.Direction, 0)
	rec.Edge, rec.Code, rec.Flags = r.Edge(k), code, f
	rec.Finish()
}

func grpcRequest(r *Recorder, k EdgeKey, code, status int, f Flags) {
	rec := r.Begin(k.Direction, 0)
	rec.Edge, rec.Protocol, rec.Code, rec.GRPCStatus, rec.Flags = r.Edge(k), GRPC, code, status, f
	rec.AddRequestMessages(2)
	rec.AddResponseMessages(3)
	rec.Finish()
}

func connection(r *Recorder, k EdgeKey, f Flags) {
	c := r.BeginConn(k.Direction, nil)
	c.AddReceived(10)
	c.AddSent(20)
	c.SetEdge(r.Edge(k))
	c.Finish(f)
}

// labelCases are the rows of the case table of Istio's semantics, and the
// value rules of the labels. Their series are in testdata/cases.txt.
func labelCases() []struct {
	name string
	edit func(*Options)
	run  func(*Recorder)
} {
	return []struct {
		name string
		edit func(*Options)
		run  func(*Recorder)
	}{
		{"plaintext, both in the mesh, source side", nil, func(r *Recorder) {
			request(r, EdgeKey{Direction: mesh.Outbound, Peer: catalogue(), Service: catalogueService}, 200, 0)
		}},
		{"plaintext, both in the mesh, destination side", nil, func(r *Recorder) {
			request(r, EdgeKey{Direction: mesh.Inbound, Peer: catalogue(), Service: cartService}, 200, 0)
		}},
		{"mTLS, source side: the policy stays unknown", nil, func(r *Recorder) {
			request(r, EdgeKey{
				Direction: mesh.Outbound, Peer: catalogue(), Service: catalogueService,
				SourcePrincipal: spiffeCart, DestinationPrincipal: spiffeCatalogue,
			}, 200, 0)
		}},
		{"mTLS, destination side: the peer's namespace is that of its identity", nil, func(r *Recorder) {
			request(r, EdgeKey{
				Direction: mesh.Inbound, Peer: catalogue(), Service: cartService,
				SourcePrincipal: spiffeCatalogue, DestinationPrincipal: spiffeCart,
			}, 200, 0)
		}},
		{"mTLS peer without metadata: namespace known, the rest not", nil, func(r *Recorder) {
			request(r, EdgeKey{Direction: mesh.Inbound, SourcePrincipal: spiffeCatalogue, DestinationPrincipal: spiffeCart}, 200, 0)
		}},
		{"TLS with one identity only is not mutual", nil, func(r *Recorder) {
			request(r, EdgeKey{Direction: mesh.Inbound, DestinationPrincipal: spiffeCart}, 200, 0)
		}},
		{"client outside the mesh", nil, func(r *Recorder) {
			request(r, EdgeKey{Direction: mesh.Inbound, Service: cartService}, 200, 0)
		}},
		{"inbound without a service: the canonical name", nil, func(r *Recorder) {
			request(r, EdgeKey{Direction: mesh.Inbound}, 200, 0)
		}},
		{"inbound to a port that is not declared", nil, func(r *Recorder) {
			connection(r, EdgeKey{Direction: mesh.Inbound, ServiceName: mesh.InboundPassthroughCluster}, 0)
		}},
		{"workload without sidecar: no app and version", nil, func(r *Recorder) {
			request(r, EdgeKey{
				Direction: mesh.Outbound, Service: catalogueService,
				Peer: &mesh.Workload{Namespace: "shop", Owner: "catalogue", Labels: map[string]string{"service.istio.io/canonical-name": "cat", "service.istio.io/canonical-revision": "r7"}},
			}, 200, 0)
		}},
		{"client aborts before an endpoint is chosen", nil, func(r *Recorder) {
			request(r, EdgeKey{Direction: mesh.Outbound, Service: catalogueService}, 0, FlagDC)
		}},
		{"no upstream", nil, func(r *Recorder) {
			request(r, EdgeKey{Direction: mesh.Outbound, Service: catalogueService}, 503, FlagUH)
			request(r, EdgeKey{Direction: mesh.Outbound, Peer: catalogue(), Service: catalogueService}, 503, FlagURX|FlagUF)
			request(r, EdgeKey{Direction: mesh.Outbound, HostFallback: "nowhere.example:81"}, 404, FlagNR)
		}},
		{"passthrough and black hole: only the name is special", nil, func(r *Recorder) {
			request(r, EdgeKey{Direction: mesh.Outbound, ServiceName: mesh.PassthroughCluster, HostFallback: "api.example"}, 200, 0)
			request(r, EdgeKey{Direction: mesh.Outbound, ServiceName: mesh.BlackHoleCluster, HostFallback: "api.example"}, 502, 0)
			connection(r, EdgeKey{Direction: mesh.Outbound, ServiceName: mesh.BlackHoleCluster}, FlagUH)
		}},
		{"gRPC", nil, func(r *Recorder) {
			k := EdgeKey{Direction: mesh.Outbound, Peer: catalogue(), Service: catalogueService}
			grpcRequest(r, k, 200, 0, 0)
			grpcRequest(r, k, 200, 14, 0)
			grpcRequest(r, k, 200, 99, 0)
			grpcRequest(r, k, 0, -1, FlagDC)
			grpcRequest(r, k, 404, -1, 0)
		}},
		{"gRPC status on plain HTTP is not counted", nil, func(r *Recorder) {
			rec := r.Begin(mesh.Inbound, 0)
			rec.Edge, rec.Code, rec.GRPCStatus = r.Edge(EdgeKey{Direction: mesh.Inbound}), 200, 5
			rec.Finish()
		}},
		{"TCP", nil, func(r *Recorder) {
			connection(r, EdgeKey{Direction: mesh.Outbound, Peer: catalogue(), Service: catalogueService}, 0)
			connection(r, EdgeKey{Direction: mesh.Outbound, Peer: catalogue(), Service: catalogueService}, FlagUF|FlagURX)
			connection(r, EdgeKey{Direction: mesh.Inbound, Peer: catalogue(), Service: cartService}, 0)
		}},
		{"own labels that are missing are left out", func(o *Options) { o.Self.Labels = nil }, func(r *Recorder) {
			request(r, EdgeKey{Direction: mesh.Outbound, Peer: catalogue(), Service: catalogueService}, 200, 0)
		}},
		{"a gateway reports as source and ignores the host", func(o *Options) { o.Gateway = true }, func(r *Recorder) {
			request(r, EdgeKey{Direction: mesh.Outbound, Peer: catalogue(), Service: catalogueService}, 200, 0)
			request(r, EdgeKey{Direction: mesh.Outbound, HostFallback: "anything.example"}, 404, FlagNR)
		}},
		{"service without a name: first DNS label, peer's namespace", nil, func(r *Recorder) {
			request(r, EdgeKey{Direction: mesh.Outbound, Peer: catalogue(), Service: mesh.ServiceRef{Host: "api.example.com"}}, 200, 0)
		}},
		{"hostile label value", nil, func(r *Recorder) {
			request(r, EdgeKey{Direction: mesh.Outbound, HostFallback: "a\"b\\c\nd\xff"}, 200, 0)
		}},
		{"codes that are none", nil, func(r *Recorder) {
			request(r, EdgeKey{Direction: mesh.Inbound}, 1000, 0)
			request(r, EdgeKey{Direction: mesh.Inbound}, -1, 0)
			request(r, EdgeKey{Direction: mesh.Inbound}, 999, 0)
		}},
		{"no edge: unknown, and noted", nil, func(r *Recorder) {
			rec := r.Begin(mesh.Outbound, 0)
			rec.Code = 400
			rec.Finish()
			r.BeginConn(mesh.Inbound, nil).Finish(FlagDC)
		}},
	}
}

var oneOfFamily = regexp.MustCompile(`^istio_(requests_total|request_messages_total|response_messages_total|tcp_[a-z_]+_total|request_duration_milliseconds_count)\{`)

func TestLabelCases(t *testing.T) {
	var got strings.Builder
	for _, tc := range labelCases() {
		r := newRecorder(t, tc.edit)
		tc.run(r)
		got.WriteString("== " + tc.name + "\n")
		for line := range strings.Lines(expose(t, r, FormatText)) {
			if oneOfFamily.MatchString(line) && !strings.Contains(line, "_count{") {
				// One label a line: differences are seen at once.
				line = strings.Replace(line, "{", "\n  ", 1)
				line = strings.Replace(line, "\"} ", "\"\n  = ", 1)
				got.WriteString(strings.ReplaceAll(line, "\",", "\"\n  "))
			}
		}
	}
	golden(t, "cases.txt", got.String())
}

// TestLabelOrder holds the order and number of labels to Istio's.
func TestLabelOrder(t *testing.T) {
	r := newRecorder(t, nil)
	k := EdgeKey{Direction: mesh.Outbound, Peer: catalogue(), Service: catalogueService}
	grpcRequest(r, k, 200, 0, 0)
	connection(r, k, 0)
	name := regexp.MustCompile(`[{,]([a-z_]+)="`)
	got := map[string][]string{}
	for line := range strings.Lines(expose(t, r, FormatText)) {
		if metric, _, ok := strings.Cut(line, "{"); ok && oneOfFamily.MatchString(line) {
			for _, m := range name.FindAllStringSubmatch(line, -1) {
				got[metric] = append(got[metric], m[1])
			}
		}
	}
	first20 := strings.Fields(`reporter source_workload source_canonical_service source_canonical_revision
		source_workload_namespace source_principal source_app source_version source_cluster destination_workload
		destination_workload_namespace destination_principal destination_app destination_version destination_service
		destination_canonical_service destination_canonical_revision destination_service_name
		destination_service_namespace destination_cluster`)
	http := append(append([]string{}, first20...), "request_protocol", "response_code", "grpc_response_status", "response_flags", "connection_security_policy")
	tcp := append(append([]string{}, first20...), "request_protocol", "response_flags", "connection_security_policy")
	want := map[string][]string{
		"istio_requests_total": http, "istio_request_duration_milliseconds_count": http,
		"istio_request_messages_total": first20, "istio_response_messages_total": first20,
		"istio_tcp_connections_opened_total": tcp, "istio_tcp_connections_closed_total": tcp,
		"istio_tcp_sent_bytes_total": tcp, "istio_tcp_received_bytes_total": tcp,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("labels differ (-want +got):\n%s", diff)
	}
}

func TestSameLabelsSameEdge(t *testing.T) {
	r := newRecorder(t, nil)
	k := EdgeKey{Direction: mesh.Outbound, Peer: catalogue(), Service: catalogueService}
	e := r.Edge(k)
	k.Peer = catalogue()
	k.Peer.Name = "another-replica"
	k.HostFallback = "ignored.example"
	if r.Edge(k) != e {
		t.Error("a replica with equal labels got another edge")
	}
	k.Peer.Owner = "catalogue-v3"
	if r.Edge(k) == e {
		t.Error("another workload got the same edge")
	}
	in := r.Edge(EdgeKey{Direction: mesh.Inbound})
	if in.service != "cart" {
		t.Errorf("inbound edge: service %q", in.service)
	}
}

func TestHostsAreBounded(t *testing.T) {
	r := newRecorder(t, func(o *Options) { o.MaxHosts = 2 })
	edge := func(host string) *Edge { return r.Edge(EdgeKey{Direction: mesh.Outbound, HostFallback: host}) }
	a, b := edge("a.example"), edge("b.example")
	other := edge("c.example")
	if other.service != "other" || edge("d.example") != other {
		t.Errorf("the third host became %q", other.service)
	}
	if edge("a.example") != a || edge("b.example") != b {
		t.Error("a host within the bound lost its edge")
	}
	long := strings.Repeat("x", 300)
	r = newRecorder(t, nil)
	if got := r.Edge(EdgeKey{Direction: mesh.Outbound, HostFallback: long}).service; got != long[:259] {
		t.Errorf("long host: %d bytes", len(got))
	}
}

func TestFlags(t *testing.T) {
	for f, want := range map[Flags]string{
		0: "-", FlagLH: "LH", FlagUDO: "UDO", FlagUF | FlagURX: "UF,URX", FlagDC | FlagUC | FlagNR: "UC,NR,DC",
		flagEnd: "-", flagEnd | FlagUH: "UH",
		flagEnd - 1: "LH,UH,UT,LR,UR,UF,UC,UO,NR,DI,FI,RL,UAEX,RLSE,DC,URX,SI,IH,DPE,UMSDR,RFCF,NFCF,DT,UPE,NC,OM,DF,DO,DR,UDO",
	} {
		if got := f.String(); got != want {
			t.Errorf("Flags(%#x) = %q, want %q", uint64(f), got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _ = FlagURX.String() }); n != 0 {
		t.Errorf("a single flag costs %v allocations", n)
	}
}
