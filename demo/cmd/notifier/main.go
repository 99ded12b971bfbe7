// Command notifier sends what happens in the shop to everyone who listens, over
// WebSocket, and a tick each second so that listeners see that it is alive.
package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/vitrine-mesh/vitrine/demo/program"
)

// hub knows who listens. A listener that is slow misses events.
type hub struct {
	mu        sync.Mutex
	listeners map[chan []byte]bool
}

func main() {
	ctx, cancel := program.Context()
	defer cancel()
	h := &hub{listeners: map[chan []byte]bool{}}
	var long sync.WaitGroup
	long.Go(func() { h.tick(ctx) })
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) { program.Reply(w, http.StatusOK, "ready") })
	mux.HandleFunc("POST /events", h.event)
	mux.HandleFunc("GET /live", func(w http.ResponseWriter, r *http.Request) {
		long.Add(1)
		defer long.Done()
		h.listen(ctx, w, r)
	})
	program.Exit(program.Serve(ctx, "notifier", mux, &long))
}

func (h *hub) tick(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			data, _ := json.Marshal(map[string]any{"tick": now.UTC().Format(time.TimeOnly)})
			h.send(data)
		}
	}
}

func (h *hub) send(data []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for l := range h.listeners {
		select {
		case l <- data:
		default:
		}
	}
}

func (h *hub) event(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	if err != nil || !json.Valid(data) {
		program.Fail(w, http.StatusBadRequest, "an event must be JSON")
		return
	}
	h.send(data)
	w.WriteHeader(http.StatusAccepted)
}

// listen sends events to one listener until it or the program ends.
func (h *hub) listen(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	defer conn.Close()
	events := make(chan []byte, 16)
	h.mu.Lock()
	h.listeners[events] = true
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.listeners, events)
		h.mu.Unlock()
	}()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			if _, _, err := conn.ReadMessage(); err != nil {
				return
			}
		}
	}()
	for {
		select {
		case <-gone:
			return
		case <-ctx.Done():
			bye := websocket.FormatCloseMessage(websocket.CloseGoingAway, "the shop closes")
			_ = conn.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second))
			return
		case data := <-events:
			if conn.WriteMessage(websocket.TextMessage, data) != nil {
				return
			}
		}
	}
}
