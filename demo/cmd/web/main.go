// Command web is the front of the shop: a page for browsers, JSON for the load,
// a WebSocket with what happens, and the switches that make the shop slow or
// let payments fail.
package main

import (
	"context"
	_ "embed"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/vitrine-mesh/vitrine/demo/program"
)

//go:embed index.html
var page []byte

type web struct {
	catalog, recommendations, cart, checkout *program.Client
	notifier                                 string

	slow, fail atomic.Bool
}

func main() {
	ctx, cancel := program.Context()
	defer cancel()
	s := &web{
		catalog:         program.NewClient(program.Env("CATALOG", "http://catalog:8080"), false),
		recommendations: program.NewClient(program.Env("RECOMMENDATIONS", "http://recommendations:8080"), false),
		cart:            program.NewClient(program.Env("CART", "http://cart:8080"), false),
		checkout:        program.NewClient(program.Env("CHECKOUT", "http://checkout:8080"), false),
		notifier:        program.Env("NOTIFIER", "ws://notifier:8080/live"),
	}
	var long sync.WaitGroup
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) { program.Reply(w, http.StatusOK, "ready") })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page) // the browser is gone, nobody to tell
	})
	mux.HandleFunc("GET /switch", s.switches)
	mux.HandleFunc("POST /switch", s.turn)
	mux.HandleFunc("GET /home", s.home)
	mux.HandleFunc("GET /product/{id}", s.product)
	mux.HandleFunc("GET /stock", func(w http.ResponseWriter, r *http.Request) { s.relay(w, r, s.catalog, http.MethodGet, "/stock") })
	mux.HandleFunc("GET /cart/{user}", s.showCart)
	mux.HandleFunc("POST /cart/{user}", s.addToCart)
	mux.HandleFunc("POST /checkout/{user}", s.buy)
	mux.HandleFunc("GET /live", func(w http.ResponseWriter, r *http.Request) {
		long.Add(1)
		defer long.Done()
		s.live(ctx, w, r)
	})
	program.Exit(program.Serve(ctx, program.Env("SHOP_NAME", "web-app"), mux, &long))
}

// turn changes the switches: slow=on|off makes catalog v2 slow, fail=on|off
// lets three of ten payments fail. It answers with their state.
func (s *web) turn(w http.ResponseWriter, r *http.Request) {
	for name, state := range map[string]*atomic.Bool{"slow": &s.slow, "fail": &s.fail} {
		switch r.FormValue(name) {
		case "on":
			state.Store(true)
		case "off":
			state.Store(false)
		case "":
		default:
			program.Fail(w, http.StatusBadRequest, name+" is on or off")
			return
		}
	}
	s.switches(w, r)
}

func (s *web) switches(w http.ResponseWriter, _ *http.Request) {
	program.Reply(w, http.StatusOK, map[string]bool{"slow": s.slow.Load(), "fail": s.fail.Load()})
}

// home lists what is recommended; the shop works without.
func (s *web) home(w http.ResponseWriter, r *http.Request) {
	var list []map[string]any
	if _, err := s.recommendations.Call(r.Context(), http.MethodGet, "/recommendations", nil, &list); err != nil {
		list = []map[string]any{}
	}
	program.Reply(w, http.StatusOK, map[string]any{"recommended": list})
}

func (s *web) product(w http.ResponseWriter, r *http.Request) {
	path := "/products/" + url.PathEscape(r.PathValue("id"))
	if s.slow.Load() {
		path += "?slow=1"
	}
	s.relay(w, r, s.catalog, http.MethodGet, path)
}

func (s *web) showCart(w http.ResponseWriter, r *http.Request) {
	s.relay(w, r, s.cart, http.MethodGet, "/cart/"+url.PathEscape(r.PathValue("user")))
}

func (s *web) addToCart(w http.ResponseWriter, r *http.Request) {
	s.relay(w, r, s.cart, http.MethodPost,
		"/cart/"+url.PathEscape(r.PathValue("user"))+"?item="+url.QueryEscape(r.FormValue("item")))
}

func (s *web) buy(w http.ResponseWriter, r *http.Request) {
	path := "/orders/" + url.PathEscape(r.PathValue("user"))
	if s.fail.Load() {
		path += "?fail=1"
	}
	s.relay(w, r, s.checkout, http.MethodPost, path)
}

// relay answers with what another service says.
func (s *web) relay(w http.ResponseWriter, r *http.Request, to *program.Client, method, path string) {
	var v any
	switch code, err := to.Call(r.Context(), method, path, nil, &v); {
	case err == nil:
		program.Reply(w, code, v)
	case code/100 == 4:
		program.Fail(w, code, err.Error())
	default:
		program.Fail(w, http.StatusBadGateway, err.Error())
	}
}

// live passes the notifier's messages on, until one side ends or the program
// does.
func (s *web) live(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	dialer := websocket.Dialer{HandshakeTimeout: 5 * time.Second}
	events, resp, err := dialer.DialContext(ctx, s.notifier, nil)
	if resp != nil {
		resp.Body.Close()
	}
	if err != nil {
		program.Fail(w, http.StatusBadGateway, "listen to the notifier: "+err.Error())
		return
	}
	defer events.Close()
	upgrader := websocket.Upgrader{}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { goodbye(conn, websocket.CloseGoingAway); goodbye(events, websocket.CloseGoingAway) })()
	go func() { // ends when conn is closed
		for {
			if _, _, err := conn.ReadMessage(); err != nil {
				goodbye(events, websocket.CloseNormalClosure)
				return
			}
		}
	}()
	for {
		kind, data, err := events.ReadMessage()
		if err != nil {
			goodbye(conn, websocket.CloseNormalClosure)
			return
		}
		if conn.WriteMessage(kind, data) != nil {
			return
		}
	}
}

// goodbye begins the closing handshake; the other side answers and both end.
func goodbye(conn *websocket.Conn, code int) {
	_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(time.Second))
}
