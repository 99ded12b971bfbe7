package proxy

import (
	"bytes"
	"net/netip"
	"testing"

	"google.golang.org/grpc/interop"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// inboundConfig of a workload whose program listens on program; the wire port
// is chosen here.
func h2InboundConfig(t *testing.T, proto mesh.Protocol, program netip.AddrPort) (*mesh.NodeConfig, netip.AddrPort) {
	t.Helper()
	wire := closedPort(t)
	const name = "inbound|80||"
	return &mesh.NodeConfig{
		Listeners: []mesh.Listener{{
			Name: "inbound", Direction: mesh.Inbound, Address: wire, Bind: true, Protocol: proto, Cluster: name,
		}},
		Clusters: []mesh.Cluster{{Name: name, Type: mesh.ClusterLocal, Service: rigService(), Port: program.Port()}},
	}, wire
}

// Through both proxies of a call, client's and server's: each reports it once.
func TestGRPCOverTwoHops(t *testing.T) {
	for _, proto := range []mesh.Protocol{mesh.ProtocolGRPC, mesh.ProtocolAuto} {
		t.Run(proto.String(), func(t *testing.T) {
			server := newRig(t, proto)
			cfg, wire := h2InboundConfig(t, proto, grpcOrigin(t))
			if err := server.p.Apply(cfg); err != nil {
				t.Fatal(err)
			}
			client := newRig(t, proto, wire)
			tc, _ := client.grpcClient(t)
			for range 3 {
				interop.DoEmptyUnaryCall(t.Context(), tc)
			}
			interop.DoPingPong(t.Context(), tc)
			interop.DoLargeUnaryCall(t.Context(), tc)
			client.wantSeries(t, "5", "istio_requests_total", requestLabels("grpc", "200", "0", "-")...)
			server.wantSeries(t, "5", "istio_requests_total", "reporter=destination", "request_protocol=grpc",
				"response_code=200", "grpc_response_status=0", "response_flags=-", "destination_service_name=web")
			client.wantSeries(t, "8", "istio_request_messages_total")
			server.wantSeries(t, "8", "istio_request_messages_total")
			server.wantSeries(t, "8", "istio_response_messages_total")
		})
	}
}

// FuzzGRPCScanner: how the bytes are cut makes no difference.
func FuzzGRPCScanner(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x01x\x01\x00\x00\x00\x00"), uint16(3))
	f.Add(bytes.Repeat([]byte{0xff}, 40), uint16(5))
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		var whole, parts grpcScanner
		n := min(int(cut), len(b))
		want, got := whole.scan(b), parts.scan(b[:n])+parts.scan(b[n:])
		if want != got || whole != parts {
			t.Errorf("%d messages in one piece, %d in two", want, got)
		}
	})
}
