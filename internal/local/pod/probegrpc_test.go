package pod

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// dialed is a case whose every port is one server.
type dialed struct {
	Case
	addr string
}

func (d dialed) Dial(ctx context.Context, _ uint16) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", d.addr)
}

// TestGRPCProbeSaysWhy: an answer that is no health says what the server lacks.
func TestGRPCProbeSaysWhy(t *testing.T) {
	for status, want := range map[string]string{
		"":   `grpc probe of port 9000: HTTP status 200 without a gRPC status: this is not a gRPC server`,
		"5":  `grpc probe of port 9000: the server does not know the health of service "shop"`,
		"12": `grpc probe of port 9000: the server does not implement grpc.health.v1.Health: add that, or use tcpSocket`,
		"14": `grpc probe of port 9000: HTTP status 200, gRPC status "14"`,
	} {
		t.Run(status, func(t *testing.T) {
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if status != "" {
					w.Header().Set("Grpc-Status", status)
				}
			}))
			server.Config.Protocols = new(http.Protocols)
			server.Config.Protocols.SetUnencryptedHTTP2(true)
			server.Start()
			defer server.Close()
			err := askGRPC(t.Context(), dialed{addr: server.Listener.Addr().String()}, &mesh.GRPCProbe{Port: 9000, Service: "shop"})
			if err == nil || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
		})
	}
}
