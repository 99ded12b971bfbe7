package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/vitrine-mesh/vitrine/test/truth/internal/order"
)

// http2 sends N requests of every shape over each of Conns HTTP/2 connections,
// up to 50 at a time.
func (w *work) http2(o *order.Order) {
	var all sync.WaitGroup
	defer all.Wait()
	for range o.Conns {
		t := transport(2)
		client := &http.Client{Transport: t}
		all.Go(func() {
			defer t.CloseIdleConnections()
			var streams sync.WaitGroup
			slots := make(chan struct{}, 50)
			for i := range o.N {
				slots <- struct{}{}
				streams.Go(func() {
					defer func() { <-slots }()
					m := shape(i)
					path := strings.Fields(m.request)[1]
					body := ""
					if m.method == http.MethodPost {
						body = strings.Repeat("hello there ", 1000) // more than one frame
					}
					w.send(client, m.method, "http://"+o.Addr+path, body, m.code)
				})
			}
			streams.Wait()
		})
	}
}

// held makes N requests that the server holds, and ends them as How says:
// "abort" by the client or "reset" by the server, "before" the response or in
// its "middle"; "leave" is a client that gives up at once, after which the
// server answers all the same.
func (w *work) held(o *order.Order) {
	who, when, _ := strings.Cut(o.How, " ")
	side := &http.Client{Transport: transport(1)} // for what is arranged with the server
	defer side.CloseIdleConnections()
	var all sync.WaitGroup
	defer all.Wait()
	for i := range o.N {
		all.Go(func() { w.heldOne(o, side, who, when, fmt.Sprintf("%d-%s-%s-%d", o.Version, who, when, i)) })
	}
}

func (w *work) heldOne(o *order.Order, side *http.Client, who, when, id string) {
	base := "http://" + o.Addr
	t := transport(o.Version)
	defer t.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	path := base + "/hold/" + id
	if when == "middle" {
		path += "?begin"
	}
	// POST, which no proxy sends twice.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, path, nil)
	if err != nil {
		w.fail(err)
		return
	}
	type result struct {
		code int
		err  error
	}
	began, left, ended := make(chan struct{}), make(chan struct{}), make(chan result, 1)
	go func() {
		defer close(left)
		resp, err := (&http.Client{Transport: t}).Do(req)
		if err != nil {
			ended <- result{0, err}
			return
		}
		defer resp.Body.Close()
		if when == "middle" {
			if _, err := io.ReadFull(resp.Body, make([]byte, 4)); err != nil {
				w.failf("%s: the first half: %v", id, err)
			}
			close(began)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		ended <- result{resp.StatusCode, err}
	}()
	w.get(side, base, "/await/"+id)
	if when == "middle" {
		select {
		case <-began:
		case <-ctx.Done():
			w.failf("%s: no response", id)
		}
	}
	switch who {
	case "abort":
		// Longer than a proxy takes a client that ends its side for one that
		// still waits for the response.
		<-time.NewTimer(600 * time.Millisecond).C
		cancel()
	case "leave":
		cancel()
		<-left
		w.get(side, base, "/end/"+id+"?how=answer")
	case "reset":
		w.get(side, base, "/end/"+id+"?how=reset")
	}
	w.get(side, base, "/ended/"+id)
	r := <-ended
	if r.code != o.Code || (r.err == nil) != (who == "reset" && when == "before") {
		w.failf("%s: %d, %v; want %d", id, r.code, r.err, o.Code)
	}
	w.count("http", r.code, "", o.Flags)
}
