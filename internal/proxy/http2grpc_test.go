//lint:file-ignore SA1019 see http2.go
package proxy

import (
	"context"
	"errors"
	"io"
	"math"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// gRPC's own interoperability tests, through the proxy, on a declared port and
// on one where the first bytes decide. They end the program when they fail.
func TestGRPCInterop(t *testing.T) {
	for _, proto := range []mesh.Protocol{mesh.ProtocolGRPC, mesh.ProtocolAuto} {
		t.Run(proto.String(), func(t *testing.T) {
			r := newRig(t, proto, grpcOrigin(t))
			tc, cc := r.grpcClient(t)
			ctx := t.Context()
			interop.DoEmptyUnaryCall(ctx, tc)
			interop.DoLargeUnaryCall(ctx, tc)
			interop.DoClientStreaming(ctx, tc)
			interop.DoServerStreaming(ctx, tc)
			interop.DoPingPong(ctx, tc)
			interop.DoEmptyStream(ctx, tc)
			interop.DoCustomMetadata(ctx, tc)
			interop.DoStatusCodeAndMessage(ctx, tc)
			interop.DoSpecialStatusMessage(ctx, tc)
			interop.DoUnimplementedMethod(ctx, cc)
			interop.DoUnimplementedService(ctx, testpb.NewUnimplementedServiceClient(cc))
			interop.DoTimeoutOnSleepingServer(ctx, tc)
			interop.DoCancelAfterBegin(ctx, tc)
			interop.DoCancelAfterFirstResponse(ctx, tc)
			// 2 unary, 3 streams, 1 empty stream, 2 with metadata: each with status 0.
			r.wantSeries(t, "8", "istio_requests_total", requestLabels("grpc", "200", "0", "-")...)
			// Unary and stream with code 2, and the one with a special message.
			r.wantSeries(t, "3", "istio_requests_total", requestLabels("grpc", "200", "2", "-")...)
			r.wantSeries(t, "2", "istio_requests_total", requestLabels("grpc", "200", "12", "-")...)
		})
	}
}

func TestGRPCMessagesAreCounted(t *testing.T) {
	r := newRig(t, mesh.ProtocolGRPC, grpcOrigin(t))
	tc, _ := r.grpcClient(t)
	stream, err := tc.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const rounds, size = 5, 100_000 // larger than a frame and than the stream window
	for range rounds {
		req := &testpb.StreamingOutputCallRequest{
			ResponseParameters: []*testpb.ResponseParameters{{Size: size}, {Size: 1}},
			Payload:            &testpb.Payload{Body: make([]byte, size)},
		}
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("recv: %v", err)
	}
	r.wantSeries(t, "1", "istio_requests_total", requestLabels("grpc", "200", "0", "-")...)
	r.wantSeries(t, strconv.Itoa(rounds), "istio_request_messages_total", "destination_service_name=web")
	r.wantSeries(t, strconv.Itoa(2*rounds), "istio_response_messages_total", "destination_service_name=web")
}

// Sixteen megabytes each way, against windows of 64 KiB.
func TestGRPCBigMessages(t *testing.T) {
	const size = 16 << 20
	limit := grpc.MaxRecvMsgSize(size + 1024)
	r := newRig(t, mesh.ProtocolGRPC, grpcOrigin(t, limit))
	tc, _ := r.grpcClient(t)
	res, err := tc.UnaryCall(t.Context(), &testpb.SimpleRequest{ResponseSize: size, Payload: &testpb.Payload{Body: make([]byte, size)}},
		grpc.MaxCallRecvMsgSize(size+1024), grpc.MaxCallSendMsgSize(size+1024))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(res.GetPayload().GetBody()); n != size {
		t.Errorf("%d bytes, want %d", n, size)
	}
}

func TestGRPCLocalFailures(t *testing.T) {
	for _, tc := range []struct {
		name, flags string
		endpoints   []netip.AddrPort
		message     string
	}{
		{"no endpoint", "UH", nil, "no healthy upstream"},
		{"refused", "UF", []netip.AddrPort{closedPort(t)}, "upstream connect error or disconnect/reset before headers. reset reason: connection failure"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, mesh.ProtocolGRPC, tc.endpoints...)
			client, _ := r.grpcClient(t)
			_, err := client.EmptyCall(t.Context(), &testpb.Empty{})
			if status.Code(err) != codes.Unavailable || status.Convert(err).Message() != tc.message {
				t.Errorf("error %v, want Unavailable with %q", err, tc.message)
			}
			r.wantSeries(t, "1", "istio_requests_total", requestLabels("grpc", "200", "14", tc.flags)...)
		})
	}
}

// A server that keeps the deadline of a call resets it then. To a client that does not
// look at its own clock first that is the end of its deadline, not a failure of the
// server; a reset before is one.
func TestGRPCDeadlineOfTheServer(t *testing.T) {
	for _, tc := range []struct{ name, timeout, status string }{
		{"in time", "1m", "4"}, // a millisecond
		{"early", "1H", "14"},
		{"none", "", "14"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			at := h2Heads(t, func(f *h2frames, stream uint32) {
				pause(t.Context(), time.Millisecond)
				_ = f.WriteRSTStream(stream, http2.ErrCodeCancel)
			})
			r := newRig(t, mesh.ProtocolGRPC, at)
			f := h2Raw(t, r.dial(t))
			fields := []string{":method", "POST", ":scheme", "http", ":authority", "web", ":path", "/a/b", "content-type", "application/grpc"}
			if tc.timeout != "" {
				fields = append(fields, "grpc-timeout", tc.timeout)
			}
			f.request(t, 1, true, fields...)
			for {
				frame := f.next(t)
				if frame == nil {
					t.Fatal("the connection was closed")
				}
				head, ok := frame.(*http2.MetaHeadersFrame)
				if !ok {
					continue
				}
				got := ""
				for _, field := range head.RegularFields() {
					if field.Name == "grpc-status" {
						got = field.Value
					}
				}
				if got != tc.status {
					t.Errorf("status %q, want %s", got, tc.status)
				}
				break
			}
			r.wantSeries(t, "1", "istio_requests_total", requestLabels("grpc", "200", tc.status, "UR")...)
		})
	}
}

func TestGRPCTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1n": time.Nanosecond, "20u": 20 * time.Microsecond, "300m": 300 * time.Millisecond, "4S": 4 * time.Second,
		"99999999M": 99999999 * time.Minute, "2H": 2 * time.Hour, "99999999H": math.MaxInt64,
		"": -1, "S": -1, "1": -1, "1s": -1, "-1S": -1, "+1S": -1, "1.5S": -1, "123456789n": -1,
	} {
		if got, ok := parseGRPCTimeout(text); ok != (want >= 0) || ok && got != want {
			t.Errorf("%q is %v, %t, want %v", text, got, ok, want)
		}
	}
}

func TestGRPCCancelReachesTheServer(t *testing.T) {
	cancelled := make(chan error, 1)
	at := grpcOrigin(t, grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		err := h(srv, ss)
		cancelled <- ss.Context().Err()
		return err
	}))
	r := newRig(t, mesh.ProtocolGRPC, at)
	tc, _ := r.grpcClient(t)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := tc.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: 1}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-cancelled; !errors.Is(err, context.Canceled) {
		t.Errorf("server's context: %v, want cancelled", err)
	}
	r.wantSeries(t, "1", "istio_requests_total", requestLabels("grpc", "200", "2", "DC")...)
}

func TestGRPCScanner(t *testing.T) {
	message := func(n int) []byte {
		return append([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, make([]byte, n)...)
	}
	var stream []byte
	for _, n := range []int{0, 1, 300, 0, 0, 70000} {
		stream = append(stream, message(n)...)
	}
	for _, step := range []int{1, 2, 3, 5, 7, 1000, len(stream)} {
		var g grpcScanner
		got := uint64(0)
		for rest := stream; len(rest) > 0; {
			n := min(step, len(rest))
			got += g.scan(rest[:n])
			rest = rest[n:]
		}
		if got != 6 || g.have != 0 || g.left != 0 {
			t.Errorf("in pieces of %d: %d messages, want 6", step, got)
		}
	}
}
