package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/vitrine-mesh/vitrine/test/truth/internal/ledger"
	"github.com/vitrine-mesh/vitrine/test/truth/internal/order"
)

func okCounts(service string, n int) []ledger.Count {
	return []ledger.Count{{Entry: ledger.Entry{Service: service, Protocol: "http", Code: 200, Flags: "-"}, N: n}}
}

// drive is a load that goes on until it is halted: HTTP/1, HTTP/2 and gRPC
// clients side by side, as ordinary programs make them, that keep their
// connections.
type drive struct {
	work *work
	stop chan struct{}
	all  sync.WaitGroup
}

// start begins a drive of Rate requests per second for each of the protocols.
func (l *loads) start(o *order.Order) {
	d := &drive{work: newWork(o.Service), stop: make(chan struct{})}
	l.running[o.Service] = d
	host, _, _ := net.SplitHostPort(o.Addr)
	for version := 1; version <= 2; version++ {
		t := transport(version)
		client := &http.Client{Transport: t}
		d.all.Go(func() {
			defer t.CloseIdleConnections()
			d.repeat(o, func() { d.work.get(client, "http://"+o.Addr, "/status/200") })
		})
	}
	d.all.Go(func() {
		conn, err := grpc.NewClient("dns:///"+host+":9090", grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			d.work.fail(err)
			return
		}
		defer conn.Close()
		client := testpb.NewTestServiceClient(conn)
		d.repeat(o, func() {
			_, err := client.UnaryCall(context.Background(), &testpb.SimpleRequest{})
			if err != nil {
				d.work.failf("grpc: %v", err)
			}
			d.work.count("grpc", 200, strconv.Itoa(int(status.Code(err))), "-")
		})
	})
}

// repeat calls one at the order's rate on Conns goroutines until halted.
func (d *drive) repeat(o *order.Order, one func()) {
	var all sync.WaitGroup
	defer all.Wait()
	for range o.Conns {
		all.Go(func() {
			tick := time.NewTicker(time.Second * time.Duration(o.Conns) / time.Duration(o.Rate))
			defer tick.Stop()
			for {
				select {
				case <-d.stop:
					return
				case <-tick.C:
					one()
				}
			}
		})
	}
}

func (l *loads) halt(o *order.Order) order.Answer {
	d := l.running[o.Service]
	close(d.stop)
	d.all.Wait()
	delete(l.running, o.Service)
	return d.work.done()
}

func transport(version int) *http.Transport {
	t := &http.Transport{Protocols: new(http.Protocols), MaxIdleConnsPerHost: 64}
	t.Protocols.SetHTTP1(version == 1)
	t.Protocols.SetUnencryptedHTTP2(version == 2)
	return t
}

// get sends one request, as an ordinary client does, that must succeed.
func (w *work) get(client *http.Client, base, path string) {
	w.send(client, http.MethodGet, base+path, "", http.StatusOK)
}

func (w *work) send(client *http.Client, method, url, body string, want int) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		w.fail(err)
		return
	}
	code := 0
	resp, err := client.Do(req)
	if err == nil {
		code = resp.StatusCode
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if err != nil || code != want {
		w.failf("%s %s: %d, %v; want %d", method, url, code, err, want)
	}
	w.count("http", code, "", "-")
}
