// Package demo tests the programs of the demo shop, as processes on loopback.
package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"

	"github.com/vitrine-mesh/vitrine/demo/resp"
	"github.com/vitrine-mesh/vitrine/internal/manifest"
)

var binDir string

// TestMain builds the programs in Go once.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "shop")
	if err == nil {
		build := exec.Command("go", "build", "-o", dir+"/", "./cmd/...")
		build.Stderr = os.Stderr
		err = build.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the shop:", err)
		os.Exit(1)
	}
	binDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// proc is a program that runs.
type proc struct {
	addr string
	cmd  *exec.Cmd
	out  *bufio.Reader
	errs *bytes.Buffer
	stop func() string // sends SIGTERM, wants exit code 0, returns the rest of the output
}

// patience bounds what takes a second at most on an idle machine.
const patience = 2 * time.Minute

// start runs a program of the shop on a free port and waits until it listens.
func start(t *testing.T, env []string, args ...string) *proc {
	t.Helper()
	if !strings.Contains(args[0], "/") && args[0] != "node" && args[0] != "python3" {
		args[0] = filepath.Join(binDir, args[0])
	}
	p := &proc{cmd: exec.Command(args[0], args[1:]...), errs: &bytes.Buffer{}}
	p.cmd.Env = append(os.Environ(), append([]string{"PORT=0"}, env...)...)
	p.cmd.Stderr = p.errs
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // if the tests are killed
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	p.stop = sync.OnceValue(func() string {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
		defer kill.Stop()
		rest, _ := io.ReadAll(p.out)
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("%v ends with %v after SIGTERM\n%s", args, err, p.errs)
		}
		return string(rest)
	})
	t.Cleanup(func() { p.stop() })
	stuck := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer stuck.Stop()
	line, err := p.out.ReadString('\n')
	m := regexp.MustCompile(`listening on \S*:(\d+)\n`).FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("%v says %q (%v)\n%s", args, line, err, p.errs)
	}
	p.addr = "127.0.0.1:" + m[1]
	return p
}

// ask sends a request and returns status and body.
func ask(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(data))
}

func want(t *testing.T, method, url, body string, code int, answer string) {
	t.Helper()
	gotCode, got := ask(t, method, url, body)
	if gotCode != code || got != answer {
		t.Errorf("%s %s = %d %s, want %d %s", method, url, gotCode, got, code, answer)
	}
}

// nowhere is an address that refuses connections.
func nowhere(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func productsFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "products.json")
	text := `[{"id":"1","name":"Bell jar","price":24.5},{"id":"2","name":"Prism","price":9.9},{"id":"3","name":"Case","price":1},
		{"id":"4","name":"Lens","price":2},{"id":"5","name":"Level","price":3},{"id":"6","name":"Globe","price":4}]`
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRatings(t *testing.T) {
	p := start(t, nil, "python3", "python/ratings.py")
	want(t, "GET", "http://"+p.addr+"/ratings/2", "", 200, `{"product": "2", "stars": 4.0}`)
	want(t, "GET", "http://"+p.addr+"/ratings/x", "", 404, `{"error": "no such product"}`)
	want(t, "GET", "http://"+p.addr+"/ready", "", 200, `"ready"`)
}

func TestShipping(t *testing.T) {
	p := start(t, nil, "python3", "python/shipping.py")
	want(t, "POST", "http://"+p.addr+"/quote", `{"pieces": 3}`, 200, `{"cost": 6.4}`)
	want(t, "POST", "http://"+p.addr+"/quote", `{}`, 400, `{"error": "pieces must be a number"}`)
}

func TestCatalog(t *testing.T) {
	ratings := start(t, nil, "python3", "python/ratings.py")
	products := "PRODUCTS=" + productsFile(t)
	v1 := start(t, []string{products, "RATINGS=http://" + ratings.addr}, "catalog")
	v2 := start(t, []string{products, "RATINGS=" + nowhere(t), "VERSION=v2", "SLOWNESS=300ms"}, "catalog")
	want(t, "GET", "http://"+v1.addr+"/products/1?slow=1", "", 200, `{"id":"1","name":"Bell jar","price":24.5,"version":"v1","rating":3.5}`)
	want(t, "GET", "http://"+v1.addr+"/products/999", "", 404, `{"error":"no such product"}`)
	begin := time.Now()
	want(t, "GET", "http://"+v2.addr+"/products/2?slow=1", "", 200, `{"id":"2","name":"Prism","price":9.9,"version":"v2","stock":20}`)
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Errorf("a slow answer of v2 took %v, want at least 300ms", took)
	}
}

func TestRecommendations(t *testing.T) {
	catalog := start(t, []string{"PRODUCTS=" + productsFile(t)}, "catalog")
	p := start(t, []string{"CATALOG=http://" + catalog.addr}, "node", "node/recommendations.js")
	want(t, "GET", "http://"+p.addr+"/recommendations", "", 200,
		`[{"id":"2","name":"Prism","price":9.9},{"id":"3","name":"Case","price":1},{"id":"4","name":"Lens","price":2}]`)
	alone := start(t, []string{"CATALOG=" + nowhere(t)}, "node", "node/recommendations.js")
	if code, body := ask(t, "GET", "http://"+alone.addr+"/recommendations", ""); code != 502 {
		t.Errorf("without catalog: %d %s, want 502", code, body)
	}
}

func TestCurrency(t *testing.T) {
	p := start(t, nil, "node", "node/currency.js")
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	for path, answer := range map[string]string{"/rates/USD": `200 HTTP/2.0 {"rate":1.08}`, "/rates/XXX": `404 HTTP/2.0 {"error":"no such currency"}`} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if got := fmt.Sprintf("%d %s %s", resp.StatusCode, resp.Proto, data); err != nil || got != answer {
			t.Errorf("%s = %s (%v), want %s", path, got, err, answer)
		}
	}
}

func TestKV(t *testing.T) {
	p := start(t, nil, "kv")
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	conn := resp.NewConn(c)
	defer conn.Close()
	for _, step := range []struct {
		command string
		answer  any
	}{
		{"PING", "PONG"},
		{"HINCRBY cart:a 1 2", int64(2)},
		{"hincrby cart:a 1 -1", int64(1)},
		{"HGETALL cart:a", []any{"1", "1"}},
		{"DBSIZE", int64(1)},
		{"DEL cart:a", int64(1)},
		{"DEL cart:a", int64(0)},
		{"HGETALL cart:a", []any{}},
		{"HINCRBY cart:a 1 x", resp.Error("ERR value is not an integer")},
		{"FLUSHALL", resp.Error(`ERR unknown command "FLUSHALL"`)},
	} {
		got, err := conn.Do(strings.Fields(step.command)...)
		if err != nil {
			got = err
		}
		if diff := cmp.Diff(step.answer, got); diff != "" {
			t.Errorf("%s: %s", step.command, diff)
		}
	}
	if _, err := c.Write([]byte("nonsense\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(); err == nil || !strings.HasPrefix(err.Error(), "ERR malformed number") {
		t.Errorf("after nonsense: %v", err)
	}
}

func TestCart(t *testing.T) {
	kv := start(t, nil, "kv")
	p := start(t, []string{"KV=" + kv.addr}, "cart")
	base := "http://" + p.addr + "/cart/ann"
	want(t, "GET", "http://"+p.addr+"/ready", "", 200, `"ready"`)
	want(t, "GET", base, "", 200, `{"items":{}}`)
	want(t, "POST", base+"?item=1", "", 201, `{"count":1,"item":"1"}`)
	want(t, "POST", base+"?item=1", "", 201, `{"count":2,"item":"1"}`)
	want(t, "POST", base, "", 400, `{"error":"item is missing"}`)
	want(t, "GET", base, "", 200, `{"items":{"1":2}}`)
	want(t, "DELETE", base, "", 204, "")
	want(t, "GET", base, "", 200, `{"items":{}}`)
	kv.stop()
	if code, body := ask(t, "GET", "http://"+p.addr+"/ready", ""); code != 503 {
		t.Errorf("without the store: %d %s, want 503", code, body)
	}
}

// tally counts the requests on each edge of the shop, by relays between the
// programs. A nil tally puts no relays there.
type tally struct {
	mu     sync.Mutex
	counts map[edge]int
}

type edge struct{ Source, Destination string }

// relay returns the address at which source is to call destination, which
// listens at addr. With h2 both sides speak HTTP/2.
func (c *tally) relay(t *testing.T, source, destination, addr string, h2 bool) string {
	t.Helper()
	if c == nil {
		return addr
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2)
	protocols.SetUnencryptedHTTP2(h2)
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr})
	transport := &http.Transport{Protocols: protocols}
	forward.Transport = transport
	server := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.counts[edge{source, destination}]++
		c.mu.Unlock()
		forward.ServeHTTP(w, r)
	})}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		<-done
		transport.CloseIdleConnections()
	})
	return l.Addr().String()
}

// shop starts everything, wired up on loopback, and returns web's address.
func shop(t *testing.T, interpreters bool, c *tally) (web string) {
	t.Helper()
	none := strings.TrimPrefix(nowhere(t), "http://")
	ratings, recommendations, currency, shipping := none, none, none, none
	if interpreters {
		ratings = start(t, nil, "python3", "python/ratings.py").addr
		shipping = start(t, nil, "python3", "python/shipping.py").addr
		currency = start(t, nil, "node", "node/currency.js").addr
	}
	catalog := start(t, []string{
		"PRODUCTS=" + productsFile(t), "RATINGS=http://" + c.relay(t, "catalog", "ratings", ratings, false),
		"VERSION=v2", "SLOWNESS=300ms",
	}, "catalog").addr
	if interpreters {
		recommendations = start(t, []string{"CATALOG=http://" + c.relay(t, "recommendations", "catalog", catalog, false)},
			"node", "node/recommendations.js").addr
	}
	kv := start(t, nil, "kv").addr
	cart := start(t, []string{"KV=" + kv}, "cart").addr
	payment := start(t, []string{"PAYMENT_KEY=k"}, "payment").addr
	notifier := start(t, nil, "notifier").addr
	checkout := start(t, []string{
		"PAYMENT_KEY=k", "CURRENCY=USD",
		"CART=http://" + c.relay(t, "checkout", "cart", cart, false),
		"RATES=http://" + c.relay(t, "checkout", "currency", currency, true),
		"SHIPPING=http://" + c.relay(t, "checkout", "shipping", shipping, false),
		"PAYMENT=" + c.relay(t, "checkout", "payment", payment, true),
		"NOTIFIER=http://" + c.relay(t, "checkout", "notifier", notifier, false),
	}, "checkout").addr
	return start(t, []string{
		"CATALOG=http://" + c.relay(t, "web-app", "catalog", catalog, false),
		"RECOMMENDATIONS=http://" + c.relay(t, "web-app", "recommendations", recommendations, false),
		"CART=http://" + c.relay(t, "web-app", "cart", cart, false),
		"CHECKOUT=http://" + c.relay(t, "web-app", "checkout", checkout, false),
		"NOTIFIER=ws://" + c.relay(t, "web-app", "notifier", notifier, false) + "/live",
	}, "web").addr
}

// TestShop buys something in the whole shop, without and with the programs that
// need an interpreter, and hears of it.
func TestShop(t *testing.T) {
	for name, tt := range map[string]struct {
		interpreters bool
		home         int // recommended products
		order        string
	}{
		"complete": {true, 3, `{"amount":27.97,"currency":"USD","order":1,"pieces":2,"receipt":"r-1","user":"ann"}`},
		"go only":  {false, 0, `{"amount":20,"currency":"USD","order":1,"pieces":2,"receipt":"r-1","user":"ann"}`},
	} {
		t.Run(name, func(t *testing.T) {
			addr := shop(t, tt.interpreters, nil)
			base := "http://" + addr
			var home struct{ Recommended []any }
			code, body := ask(t, "GET", base+"/home", "")
			if err := json.Unmarshal([]byte(body), &home); err != nil || code != 200 || len(home.Recommended) != tt.home {
				t.Errorf("home = %d %s (%v), want %d products", code, body, err, tt.home)
			}
			conn, _, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+addr+"/live", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, tick, err := conn.ReadMessage(); err != nil || !strings.HasPrefix(string(tick), `{"tick":`) {
				t.Errorf("first message %s (%v), want a tick", tick, err)
			}
			if code, body := ask(t, "POST", base+"/checkout/ann", ""); code != 409 {
				t.Errorf("an empty cart is bought: %d %s, want 409", code, body)
			}
			want(t, "POST", base+"/cart/ann?item=1", "", 201, `{"count":1,"item":"1"}`)
			want(t, "POST", base+"/cart/ann?item=3", "", 201, `{"count":1,"item":"3"}`)
			want(t, "POST", base+"/checkout/ann", "", 201, tt.order)
			for {
				_, data, err := conn.ReadMessage()
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.HasPrefix(data, []byte(`{"tick":`)) {
					if string(data) != tt.order {
						t.Errorf("heard %s, want %s", data, tt.order)
					}
					break
				}
			}
			want(t, "GET", base+"/cart/ann", "", 200, `{"items":{}}`)
		})
	}
}

// TestSwitches turns the slow and the failing path on and off.
func TestSwitches(t *testing.T) {
	base := "http://" + shop(t, false, nil)
	want(t, "GET", base+"/switch", "", 200, `{"fail":false,"slow":false}`)
	want(t, "GET", base+"/switch?slow=on&fail=on", "", 200, `{"fail":false,"slow":false}`) // only shows
	want(t, "POST", base+"/switch?slow=maybe", "", 400, `{"error":"slow is on or off"}`)
	want(t, "POST", base+"/switch?slow=on&fail=on", "", 200, `{"fail":true,"slow":true}`)
	begin := time.Now()
	ask(t, "GET", base+"/product/1", "")
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Errorf("a slow product took %v, want at least 300ms", took)
	}
	buy := func() (codes []int) {
		for range 20 {
			ask(t, "POST", base+"/cart/ann?item=1", "")
			code, _ := ask(t, "POST", base+"/checkout/ann", "")
			codes = append(codes, code)
		}
		slices.Sort(codes)
		return codes
	}
	expect := append(slices.Repeat([]int{201}, 14), slices.Repeat([]int{502}, 6)...)
	if diff := cmp.Diff(expect, buy()); diff != "" {
		t.Errorf("statuses of 20 orders while payments fail: %s", diff)
	}
	want(t, "POST", base+"/switch?slow=off&fail=off", "", 200, `{"fail":false,"slow":false}`)
	if diff := cmp.Diff(slices.Repeat([]int{201}, 20), buy()); diff != "" {
		t.Errorf("statuses of 20 orders after that: %s", diff)
	}
}

// ledger is what load reports.
type ledger struct {
	Requests []struct {
		Kind        string
		Code, Count int
	}
	Edges []struct {
		edge
		Count int
	}
	Exact bool
}

// TestLoad runs the load, half of the time with failing payments, and holds its
// ledger against what relays between the programs counted, edge by edge.
func TestLoad(t *testing.T) {
	c := &tally{counts: map[edge]int{}}
	web := shop(t, true, c)
	file := filepath.Join(t.TempDir(), "ledger.json")
	front := c.relay(t, "load", "web-app", web, false)
	p := start(t, []string{"WEB=http://" + front, "LIVE=ws://" + front + "/live", "RATE=200", "LEDGER=" + file, "WAIT_FOR=localhost"}, "load")
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var l ledger
	for len(l.Requests) < 10 { // nine kinds, and checkout with two statuses
		if ctx.Err() != nil {
			t.Fatalf("some kinds of request were not made: %+v", l)
		}
		_, body := ask(t, "GET", "http://"+p.addr+"/ledger", "")
		if err := json.Unmarshal([]byte(body), &l); err != nil {
			t.Fatal(err)
		}
		if len(l.Requests) == 9 {
			want(t, "POST", "http://"+web+"/switch?fail=on", "", 200, `{"fail":true,"slow":false}`)
		}
	}
	out := p.stop()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if out != "ledger "+string(data) {
		t.Errorf("printed %s, wrote %s", out, data)
	}
	l = ledger{}
	if err := json.Unmarshal(data, &l); err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, r := range l.Requests {
		got = append(got, fmt.Sprintf("%s %d", r.Kind, r.Code))
	}
	expect := []string{
		"add 201", "cart 200", "checkout 201", "checkout 502", "home 200", "live 101", "missing 404", "product 200", "ready 200",
		"stock 502",
	}
	if diff := cmp.Diff(expect, got); diff != "" || !l.Exact {
		t.Errorf("exact %v, kinds and statuses: %s", l.Exact, diff)
	}
	edges := map[edge]int{}
	for _, e := range l.Edges {
		edges[e.edge] = e.Count
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if diff := cmp.Diff(c.counts, edges); diff != "" {
		t.Errorf("requests on edges, relays against ledger: %s", diff)
	}
	if len(edges) != len(documentedEdges(t))-2 { // two versions of catalog are one app, and kv is no HTTP
		t.Errorf("%d edges in the ledger, %d in edges.txt", len(edges), len(documentedEdges(t)))
	}
}

// documentedEdges reads edges.txt: workload, service, protocol.
func documentedEdges(t *testing.T) (edges [][]string) {
	t.Helper()
	data, err := os.ReadFile("edges.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if words := strings.Fields(line); words[0] != "#" {
			edges = append(edges, words)
		}
	}
	return edges
}

// TestManifest wants that the shop's YAML loads without a warning, and that
// edges.txt, the ledger's edges and the YAML speak of the same services.
func TestManifest(t *testing.T) {
	objects, diags := manifest.Load([]string{"shop.yaml"}, manifest.Options{})
	for _, d := range diags {
		t.Error(d)
	}
	if objects == nil {
		t.Fatal("the shop does not load")
	}
	names := map[string]bool{}
	programs := map[string]bool{}
	for i := range objects.Sets {
		s := &objects.Sets[i]
		names[s.Name] = true
		c := &s.Containers[0]
		if c.Readiness == nil {
			t.Errorf("%s has no readiness probe", s.Name)
		}
		program := c.Args[0]
		switch filepath.Base(program) {
		case "node", "python3":
			program = c.Args[1]
			if _, err := os.Stat(program); err != nil {
				t.Errorf("%s: %v", s.Name, err)
			}
		default:
			if _, err := os.Stat(filepath.Join("cmd", filepath.Base(program), "main.go")); err != nil {
				t.Errorf("%s: %v", s.Name, err)
			}
		}
		programs[program] = true
	}
	if len(programs) != 12 {
		t.Errorf("%d programs, want 12", len(programs))
	}
	for i := range objects.Services {
		names[objects.Services[i].Name] = true
	}
	for _, e := range documentedEdges(t) {
		if len(e) != 3 || !names[e[0]] || !names[e[1]] || !slices.Contains([]string{"http", "grpc", "tcp"}, e[2]) {
			t.Errorf("edges.txt: %q", e)
		}
	}
}
