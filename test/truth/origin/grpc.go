package main

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/vitrine-mesh/vitrine/test/truth/internal/ledger"
)

// service is gRPC's own interoperability service, as far as the test needs it.
type service struct {
	testpb.UnimplementedTestServiceServer
	o *origin
}

func (o *origin) serveGRPC(ctx context.Context) error {
	l, err := net.Listen("tcp", ":9090")
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.StatsHandler(&calls{o}))
	testpb.RegisterTestServiceServer(server, &service{o: o})
	stop := context.AfterFunc(ctx, server.GracefulStop)
	defer stop()
	return server.Serve(l)
}

func answer(s *testpb.EchoStatus) error {
	if s.GetCode() == 0 {
		return nil
	}
	return status.Error(codes.Code(s.GetCode()), s.GetMessage())
}

func (s *service) UnaryCall(_ context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if err := answer(r.GetResponseStatus()); err != nil {
		return nil, err
	}
	return &testpb.SimpleResponse{Payload: r.GetPayload()}, nil
}

func (s *service) StreamingOutputCall(r *testpb.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	for range r.GetResponseParameters() {
		if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: r.GetPayload()}); err != nil {
			return err
		}
	}
	return answer(r.GetResponseStatus())
}

func (s *service) StreamingInputCall(stream grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
	for {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return stream.SendAndClose(&testpb.StreamingInputCallResponse{})
		} else if err != nil {
			return err
		}
	}
}

func (s *service) FullDuplexCall(stream grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: r.GetPayload()}); err != nil {
			return err
		}
	}
}

// calls writes down each call and its messages, from gRPC's own events.
type calls struct{ o *origin }

type messages struct{ in, out atomic.Int64 }

type messagesKey struct{}

func (c *calls) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, messagesKey{}, &messages{})
}

func (c *calls) HandleRPC(ctx context.Context, s stats.RPCStats) {
	m := ctx.Value(messagesKey{}).(*messages)
	switch s := s.(type) {
	case *stats.InPayload:
		m.in.Add(1)
	case *stats.OutPayload:
		m.out.Add(1)
	case *stats.End:
		c.o.ledger.Fact("grpc_in", int(m.in.Load()))
		c.o.ledger.Fact("grpc_out", int(m.out.Load()))
		e := ledger.Entry{Service: c.o.service, Protocol: "grpc", Code: 200, Flags: "-"}
		e.GRPC = strconv.Itoa(int(status.Code(s.Error)))
		if status.Code(s.Error) == codes.Canceled { // its client left
			e.GRPC, e.Flags = "2", "DC" // a 200 without a status is UNKNOWN
		}
		c.o.ledger.Request(e)
	}
}

func (c *calls) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (c *calls) HandleConn(context.Context, stats.ConnStats)                       {}
