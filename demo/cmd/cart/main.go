// Command cart keeps what a user wants to buy, in the key-value store.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/vitrine-mesh/vitrine/demo/program"
	"github.com/vitrine-mesh/vitrine/demo/resp"
)

func main() {
	ctx, cancel := program.Context()
	defer cancel()
	kv := &pool{address: program.Env("KV", "kv:6379"), idle: make(chan *resp.Conn, 16)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", kv.ready)
	mux.HandleFunc("GET /cart/{user}", kv.list)
	mux.HandleFunc("POST /cart/{user}", kv.add)
	mux.HandleFunc("DELETE /cart/{user}", kv.empty)
	program.Exit(program.Serve(ctx, "cart", mux, nil))
}

// pool keeps connections to the store open.
type pool struct {
	address string
	idle    chan *resp.Conn
}

// do runs one command. A connection that was idle may have been closed by the
// other side, so that one is given a second try.
func (p *pool) do(ctx context.Context, words ...string) (any, error) {
	select {
	case conn := <-p.idle:
		if v, err := p.try(conn, words); err == nil || isReply(err) {
			return v, err
		}
	default:
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	c, err := d.DialContext(ctx, "tcp", p.address)
	if err != nil {
		return nil, fmt.Errorf("call the key-value store: %w", err)
	}
	return p.try(resp.NewConn(c), words)
}

func (p *pool) try(conn *resp.Conn, words []string) (any, error) {
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	v, err := conn.Do(words...)
	if err != nil && !isReply(err) {
		conn.Close()
		return nil, fmt.Errorf("call the key-value store: %w", err)
	}
	select {
	case p.idle <- conn:
	default:
		conn.Close()
	}
	return v, err
}

func isReply(err error) bool {
	_, ok := errors.AsType[resp.Error](err)
	return ok
}

func (p *pool) ready(w http.ResponseWriter, r *http.Request) {
	if _, err := p.do(r.Context(), "PING"); err != nil {
		program.Fail(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	program.Reply(w, http.StatusOK, "ready")
}

func (p *pool) list(w http.ResponseWriter, r *http.Request) {
	v, err := p.do(r.Context(), "HGETALL", "cart:"+r.PathValue("user"))
	if err != nil {
		program.Fail(w, http.StatusBadGateway, err.Error())
		return
	}
	items := map[string]int{}
	list, _ := v.([]any)
	for i := 0; i+1 < len(list); i += 2 {
		item, _ := list[i].(string)
		count, _ := list[i+1].(string)
		items[item], _ = strconv.Atoi(count)
	}
	program.Reply(w, http.StatusOK, map[string]any{"items": items})
}

func (p *pool) add(w http.ResponseWriter, r *http.Request) {
	item := r.FormValue("item")
	if item == "" {
		program.Fail(w, http.StatusBadRequest, "item is missing")
		return
	}
	n, err := p.do(r.Context(), "HINCRBY", "cart:"+r.PathValue("user"), item, "1")
	if err != nil {
		program.Fail(w, http.StatusBadGateway, err.Error())
		return
	}
	program.Reply(w, http.StatusCreated, map[string]any{"item": item, "count": n})
}

func (p *pool) empty(w http.ResponseWriter, r *http.Request) {
	if _, err := p.do(r.Context(), "DEL", "cart:"+r.PathValue("user")); err != nil {
		program.Fail(w, http.StatusBadGateway, err.Error())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
