package main

import (
	"context"
	"errors"
	"io"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/vitrine-mesh/vitrine/test/truth/internal/order"
)

// grpc makes N calls of every kind over each of Conns connections.
func (w *work) grpc(o *order.Order) {
	for range o.Conns {
		conn, err := grpc.NewClient("dns:///"+o.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			w.fail(err)
			return
		}
		client := testpb.NewTestServiceClient(conn)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		for range o.N {
			w.unary(ctx, client)
			w.streams(ctx, client)
			w.cancelled(ctx, client)
		}
		cancel()
		conn.Close()
	}
}

func (w *work) ended(err error, want codes.Code, sent, received int) {
	if got := status.Code(err); got != want {
		w.failf("grpc: %s (%v), want %s", got, err, want)
	}
	w.count("grpc", 200, strconv.Itoa(int(status.Code(err))), "-")
	w.fact("grpc_out", sent)
	w.fact("grpc_in", received)
}

func (w *work) unary(ctx context.Context, client testpb.TestServiceClient) {
	payload := &testpb.Payload{Body: make([]byte, 3000)}
	for _, code := range []codes.Code{codes.OK, codes.NotFound, codes.Internal, codes.Unavailable, codes.DataLoss} {
		_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{
			Payload: payload, ResponseStatus: &testpb.EchoStatus{Code: int32(code)},
		}, grpc.WaitForReady(true))
		received := 0
		if code == codes.OK {
			received = 1
		}
		w.ended(err, code, 1, received)
	}
	_, err := client.UnimplementedCall(ctx, &testpb.Empty{})
	w.ended(err, codes.Unimplemented, 1, 0)
}

func (w *work) streams(ctx context.Context, client testpb.TestServiceClient) {
	const messages = 7
	request := &testpb.StreamingOutputCallRequest{
		Payload:            &testpb.Payload{Body: make([]byte, 20_000)},
		ResponseParameters: make([]*testpb.ResponseParameters, messages),
		ResponseStatus:     &testpb.EchoStatus{Code: int32(codes.Aborted)},
	}
	for i := range request.ResponseParameters {
		request.ResponseParameters[i] = &testpb.ResponseParameters{}
	}
	down, err := client.StreamingOutputCall(ctx, request)
	if err != nil {
		w.fail(err)
		return
	}
	received := 0
	for ; err == nil; received++ {
		_, err = down.Recv()
	}
	w.ended(err, codes.Aborted, 1, received-1)

	up, err := client.StreamingInputCall(ctx)
	if err != nil {
		w.fail(err)
		return
	}
	for range messages {
		if err := up.Send(&testpb.StreamingInputCallRequest{Payload: request.GetPayload()}); err != nil {
			w.fail(err)
		}
	}
	_, err = up.CloseAndRecv()
	w.ended(err, codes.OK, messages, 1)

	both, err := client.FullDuplexCall(ctx)
	if err != nil {
		w.fail(err)
		return
	}
	for range messages {
		if err := errors.Join(both.Send(&testpb.StreamingOutputCallRequest{}), recv(both)); err != nil {
			w.fail(err)
		}
	}
	err = errors.Join(both.CloseSend(), wantEOF(both))
	w.ended(err, codes.OK, messages, messages)
}

// cancelled begins a stream, exchanges one message and leaves.
func (w *work) cancelled(ctx context.Context, client testpb.TestServiceClient) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	both, err := client.FullDuplexCall(ctx)
	if err == nil {
		err = errors.Join(both.Send(&testpb.StreamingOutputCallRequest{}), recv(both))
	}
	if err != nil {
		w.fail(err)
		return
	}
	cancel()
	if _, err := both.Recv(); status.Code(err) != codes.Canceled {
		w.failf("grpc: %v, want cancelled", err)
	}
	w.count("grpc", 200, "2", "DC") // a 200 without a status is UNKNOWN
	w.fact("grpc_out", 1)
	w.fact("grpc_in", 1)
}

type duplex = grpc.BidiStreamingClient[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]

func recv(s duplex) error {
	_, err := s.Recv()
	return err
}

func wantEOF(s duplex) error {
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
