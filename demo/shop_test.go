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

// nowhere is an address that refuses connections: a socket is bound to it that does
// not listen, so that until the test ends nobody else gets it.
func nowhere(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("http://127.0.0.1:%d", at.(*syscall.SockaddrInet4).Port)
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
