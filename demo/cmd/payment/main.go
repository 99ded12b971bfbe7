// Command payment charges credit cards, by gRPC on port 9090. It declines three
// of ten charges when it is asked to fail.
package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/vitrine-mesh/vitrine/demo/program"
)

type payment struct {
	key     string
	charges atomic.Uint64 // for the receipt
	failing atomic.Uint64 // charges asked to fail
}

func main() {
	ctx, cancel := program.Context()
	defer cancel()
	p := &payment{key: program.Env("PAYMENT_KEY", "")}
	l, err := program.Listen("payment", "9090")
	program.Exit(err)
	server := grpc.NewServer()
	server.RegisterService(description(), p)
	healthpb.RegisterHealthServer(server, health.NewServer())
	defer context.AfterFunc(ctx, server.GracefulStop)()
	program.Exit(server.Serve(l))
}

// description is the service shop.Payment: one method, Charge, from a struct to
// a struct. It is short enough to do without generated code.
func description() *grpc.ServiceDesc {
	charge := func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := &structpb.Struct{}
		if err := decode(in); err != nil {
			return nil, err
		}
		p, _ := srv.(*payment)
		return p.charge(ctx, in)
	}
	return &grpc.ServiceDesc{
		ServiceName: "shop.Payment", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Charge", Handler: charge}},
	}
}

func (p *payment) charge(ctx context.Context, in *structpb.Struct) (*structpb.Struct, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if got := md.Get("payment-key"); p.key != "" && (len(got) != 1 || got[0] != p.key) {
		return nil, status.Error(codes.Unauthenticated, "the payment key is wrong")
	}
	amount := in.GetFields()["amount"].GetNumberValue()
	if amount <= 0 {
		return nil, status.Error(codes.InvalidArgument, "the amount must be above 0")
	}
	if in.GetFields()["fail"].GetBoolValue() && p.failing.Add(1)%10 < 3 {
		return nil, status.Error(codes.Unavailable, "the bank does not answer")
	}
	out, err := structpb.NewStruct(map[string]any{"receipt": fmt.Sprintf("r-%d", p.charges.Add(1)), "amount": amount})
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return out, nil
}
