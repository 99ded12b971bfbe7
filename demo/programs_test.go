package demo

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/demo/resp"
)

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
	for path, answer := range map[string]string{"/rates/USD": `200 HTTP/2.0 {"rate":1.08}`, "/rates/ZZZ": `404 HTTP/2.0 {"error":"no such currency"}`} {
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
