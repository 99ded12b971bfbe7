// Command load visits the shop again and again and keeps a ledger of what it
// asked and what it was answered.
//
// RATE is the number of requests per second (20), DURATION ends the program
// after a time (never), LEDGER names a file for the ledger. The ledger is also
// served at /ledger, and written to standard output at the end. WAIT_FOR names a
// headless service of all programs: visits begin when it has settled.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/vitrine-mesh/vitrine/demo/program"
)

// workers is how many visitors there are at a time.
const workers = 8

type visitors struct {
	web    *program.Client
	live   string
	rate   float64
	ledger *ledger
	turn   chan struct{} // one for each request that is due
}

func main() {
	ctx, cancel := program.Context()
	defer cancel()
	v := &visitors{
		web:    program.NewClient(program.Env("WEB", "http://web-app:8080"), false),
		live:   program.Env("LIVE", "ws://web-app:8080/live"),
		ledger: newLedger(),
		turn:   make(chan struct{}),
	}
	var err error
	if v.rate, err = strconv.ParseFloat(program.Env("RATE", "20"), 64); err != nil || v.rate <= 0 {
		program.Exit(errors.New("environment variable RATE must be a number above 0"))
	}
	duration, err := time.ParseDuration(program.Env("DURATION", "0s"))
	program.Exit(err)
	if duration > 0 {
		ctx, cancel = context.WithTimeout(ctx, duration)
		defer cancel()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) { program.Reply(w, http.StatusOK, "ready") })
	mux.HandleFunc("GET /ledger", func(w http.ResponseWriter, _ *http.Request) { program.Reply(w, http.StatusOK, v.ledger.report()) })
	var long sync.WaitGroup
	long.Go(func() { v.run(ctx) })
	err = program.Serve(ctx, "load", mux, &long)
	program.Exit(v.write())
	program.Exit(err)
}

// settled waits until the number of addresses of a headless service, which are
// those of its ready programs, has stood still for a while. It knocks at no
// door, so it leaves no failed requests behind.
func settled(ctx context.Context, service string) {
	const quiet = 2 * time.Second
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	ready, since := 0, time.Now()
	for ready == 0 || time.Since(since) < quiet {
		if addresses, _ := net.DefaultResolver.LookupHost(ctx, service); len(addresses) != ready {
			ready, since = len(addresses), time.Now()
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// run makes visits until ctx ends, and lets the last ones finish.
func (v *visitors) run(ctx context.Context) {
	if service := program.Env("WAIT_FOR", ""); service != "" {
		settled(ctx, service)
	}
	if ctx.Err() != nil {
		return
	}
	requests := context.WithoutCancel(ctx) // what was begun is finished
	for v.ask(requests, "ready", http.MethodGet, "/ready") != http.StatusOK {
		select {
		case <-ctx.Done():
			return
		case <-time.Tick(200 * time.Millisecond):
		}
	}
	var all sync.WaitGroup
	defer all.Wait()
	for i := range workers {
		all.Go(func() { v.visit(requests, i) })
	}
	all.Go(func() { v.listen(ctx, requests) })
	ticker := time.NewTicker(time.Duration(float64(time.Second) / v.rate))
	defer ticker.Stop()
	defer close(v.turn)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		select {
		case v.turn <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}

// visit plays one visitor after the other, a request per turn, until turns end.
func (v *visitors) visit(ctx context.Context, worker int) {
	for n := 0; ; n++ {
		user := fmt.Sprintf("visitor-%d-%d", worker, n)
		product := strconv.Itoa(1 + (worker+n)%6)
		for _, step := range []struct{ kind, method, path string }{
			{"home", http.MethodGet, "/home"},
			{"product", http.MethodGet, "/product/" + product},
			{"add", http.MethodPost, "/cart/" + user + "?item=" + product},
			{"product", http.MethodGet, "/product/1"},
			{"missing", http.MethodGet, "/product/999"},
			{"stock", http.MethodGet, "/stock"},
			{"add", http.MethodPost, "/cart/" + user + "?item=1"},
			{"cart", http.MethodGet, "/cart/" + user},
			{"checkout", http.MethodPost, "/checkout/" + user},
		} {
			if _, ok := <-v.turn; !ok {
				return
			}
			v.ask(ctx, step.kind, step.method, step.path)
		}
	}
}

func (v *visitors) ask(ctx context.Context, kind, method, path string) int {
	code, _ := v.web.Call(ctx, method, path, nil, nil)
	v.ledger.add(kind, code)
	return code
}

// listen opens the WebSocket every few seconds and waits for a message.
func (v *visitors) listen(ctx, requests context.Context) {
	for {
		v.ledger.add("live", v.hear(requests))
		select {
		case <-ctx.Done():
			return
		case <-time.Tick(3 * time.Second):
		}
	}
}

// listening is how long a WebSocket is open at least, however busy the shop is:
// of the demo's requests some are to be slow without a switch. The notifier ticks
// each second, so none lasts much longer.
const listening = 1500 * time.Millisecond

// hear returns the status of the handshake, or 0 if two messages did not come after it.
func (v *visitors) hear(ctx context.Context) int {
	dialer := websocket.Dialer{HandshakeTimeout: 5 * time.Second}
	conn, resp, err := dialer.DialContext(ctx, v.live, nil)
	code := 0
	if resp != nil {
		code = resp.StatusCode
		resp.Body.Close()
	}
	if err != nil {
		return code
	}
	defer conn.Close()
	began := time.Now()
	_ = conn.SetReadDeadline(began.Add(10 * time.Second))
	for n := 0; n < 2 || time.Since(began) < listening; n++ {
		if _, _, err := conn.ReadMessage(); err != nil {
			return 0
		}
	}
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = conn.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second))
	for err == nil {
		_, _, err = conn.ReadMessage() // until the other side has said goodbye
	}
	return code
}

// write leaves the ledger behind.
func (v *visitors) write() error {
	data, err := json.Marshal(v.ledger.report())
	if err != nil {
		return fmt.Errorf("encode the ledger: %w", err)
	}
	fmt.Fprintf(os.Stdout, "ledger %s\n", data)
	if path := program.Env("LEDGER", ""); path != "" {
		if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
			return fmt.Errorf("write the ledger: %w", err)
		}
	}
	return nil
}
