// Command checkout turns a cart into an order: it asks for the exchange rate
// and the shipping cost, charges the card, empties the cart and tells everyone.
package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/vitrine-mesh/vitrine/demo/program"
)

type checkout struct {
	key      string
	currency string
	orders   atomic.Uint64

	payment                         *grpc.ClientConn
	cart, rates, shipping, notifier *program.Client
}

func main() {
	ctx, cancel := program.Context()
	defer cancel()
	conn, err := grpc.NewClient(program.Env("PAYMENT", "payment:9090"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	program.Exit(err)
	defer conn.Close()
	c := &checkout{
		key: program.Env("PAYMENT_KEY", ""), currency: program.Env("CURRENCY", "EUR"), payment: conn,
		cart:     program.NewClient(program.Env("CART", "http://cart:8080"), false),
		rates:    program.NewClient(program.Env("RATES", "http://currency:8080"), true),
		shipping: program.NewClient(program.Env("SHIPPING", "http://shipping:8080"), false),
		notifier: program.NewClient(program.Env("NOTIFIER", "http://notifier:8080"), false),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) { program.Reply(w, http.StatusOK, "ready") })
	mux.HandleFunc("POST /orders/{user}", c.order)
	program.Exit(program.Serve(ctx, "checkout", mux, nil))
}

func (c *checkout) order(w http.ResponseWriter, r *http.Request) {
	ctx, user := r.Context(), r.PathValue("user")
	var cart struct {
		Items map[string]int `json:"items"`
	}
	if _, err := c.cart.Call(ctx, http.MethodGet, "/cart/"+user, nil, &cart); err != nil {
		program.Fail(w, http.StatusBadGateway, err.Error())
		return
	}
	if len(cart.Items) == 0 {
		program.Fail(w, http.StatusConflict, "the cart is empty")
		return
	}
	pieces := 0
	for _, n := range cart.Items {
		pieces += n
	}
	// Without a rate prices stay as they are, without a quote shipping is free.
	rate := struct{ Rate float64 }{1}
	_, _ = c.rates.Call(ctx, http.MethodGet, "/rates/"+c.currency, nil, &rate)
	quote := struct{ Cost float64 }{0}
	_, _ = c.shipping.Call(ctx, http.MethodPost, "/quote", map[string]int{"pieces": pieces}, &quote)

	amount := math.Round((float64(pieces)*10+quote.Cost)*rate.Rate*100) / 100
	receipt, err := c.charge(ctx, amount, r.FormValue("fail") != "")
	if err != nil {
		program.Fail(w, http.StatusBadGateway, err.Error())
		return
	}
	if _, err := c.cart.Call(ctx, http.MethodDelete, "/cart/"+user, nil, nil); err != nil {
		program.Fail(w, http.StatusBadGateway, err.Error())
		return
	}
	order := map[string]any{
		"order": c.orders.Add(1), "user": user, "pieces": pieces, "amount": amount, "currency": c.currency, "receipt": receipt,
	}
	// The order stands even if nobody hears of it.
	_, _ = c.notifier.Call(ctx, http.MethodPost, "/events", order, nil)
	program.Reply(w, http.StatusCreated, order)
}

func (c *checkout) charge(ctx context.Context, amount float64, fail bool) (string, error) {
	in, err := structpb.NewStruct(map[string]any{"amount": amount, "fail": fail})
	if err != nil {
		return "", err
	}
	out := &structpb.Struct{}
	ctx = metadata.AppendToOutgoingContext(ctx, "payment-key", c.key)
	if err := c.payment.Invoke(ctx, "/shop.Payment/Charge", in, out); err != nil {
		return "", fmt.Errorf("charge the card: %w", err)
	}
	return out.GetFields()["receipt"].GetStringValue(), nil
}
