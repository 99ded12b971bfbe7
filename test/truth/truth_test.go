package truth

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/meshtest"
	"github.com/vitrine-mesh/vitrine/test/truth/internal/ledger"
	"github.com/vitrine-mesh/vitrine/test/truth/internal/order"
)

// openTo makes path reachable for other users.
func openTo(t *testing.T, path string) {
	t.Helper()
	for dir := filepath.Dir(path); strings.HasPrefix(dir, filepath.Clean(os.TempDir())+"/"); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// app is the YAML of replicas of the origin behind a Service. With declared,
// the ports say what they speak; else the proxies find out.
func app(name string, replicas int, declared bool) string {
	http, grpc, tcp := "web", "calls", "echo"
	if declared {
		http, grpc, tcp = "http", "grpc", "tcp"
	}
	return fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec:
  selector: {app: %[1]s}
  ports:
  - {name: %[3]s, port: 8080}
  - {name: %[4]s, port: 9090}
  - {name: %[5]s, port: 7000}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector:
    matchLabels: {app: %[1]s}
  template:
    metadata:
      labels: {app: %[1]s, version: v1}
    spec:
      terminationGracePeriodSeconds: 15
      containers:
      - name: origin
        command: [$ORIGIN]
        env:
        - {name: SERVICE, value: %[1]s}
        - {name: LEDGER, value: $LEDGERS}
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        ports: [{containerPort: 8080}, {containerPort: 9090}, {containerPort: 7000}]
        readinessProbe:
          httpGet: {path: /ready, port: 8080}
          periodSeconds: 1
---
`, name, replicas, http, grpc, tcp)
}

// deaf is a program that is ready and listens nowhere.
const deaf = `
apiVersion: v1
kind: Service
metadata: {name: deaf}
spec:
  selector: {app: deaf}
  ports: [{name: http, port: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: deaf}
spec:
  selector:
    matchLabels: {app: deaf}
  template:
    metadata:
      labels: {app: deaf}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: deaf, command: [sleep, "1000"], ports: [{containerPort: 8080}]}
---
`

// users runs a test as the user who tests, and as an ordinary one if that is
// root.
func users(t *testing.T, test func(t *testing.T, asUser bool)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Run("ordinary user", func(t *testing.T) { test(t, false) })
		return
	}
	t.Run("root", func(t *testing.T) { test(t, false) })
	t.Run("ordinary user", func(t *testing.T) { test(t, true) })
}

// TestRequests sends every kind of request that can end in a way of its own.
func TestRequests(t *testing.T) {
	users(t, func(t *testing.T, asUser bool) {
		t.Helper()
		b := open(t, meshtest.Options{
			YAML:   app("plain", 2, true) + app("guess", 1, false) + app("brew", 1, false) + app("one", 1, true) + app("empty", 0, true) + deaf,
			AsUser: asUser,
		})
		for _, service := range []string{"plain", "guess"} {
			addr := service + ":8080"
			b.do(order.Order{Op: "http1", Addr: addr, Service: service, Conns: 10, N: 50})
			b.do(order.Order{Op: "pipeline", Addr: addr, Service: service, Conns: 10, N: 30})
		}
		b.agree(false)
		b.bytes()
		// A method that nobody has registered opens a connection between proxies
		// that has to find out what it carries; what follows uses it too.
		b.do(order.Order{Op: "raw", Addr: "brew:8080", Service: "brew", Text: "BREW /echo HTTP/1.1\r\nHost: brew:8080\r\n\r\n", Code: 200, Flags: "-", N: 7})
		b.do(order.Order{Op: "http1", Addr: "brew:8080", Service: "brew", Conns: 10, N: 20})
		for _, service := range []string{"plain", "guess"} {
			b.do(order.Order{Op: "http2", Addr: service + ":8080", Service: service, Conns: 2, N: 300})
			b.do(order.Order{Op: "grpc", Addr: service + ":9090", Service: service, Conns: 2, N: 10})
		}
		b.agree(false)
		b.messages()
		b.ends()
		b.answers()
		b.agree(false)
		b.report()
	})
}

// bytes wants that the bytes of requests and responses at the source are what
// the load's connections carried.
func (b *books) bytes() {
	b.t.Helper()
	by := func(l map[string]string) string { return l["destination_service_name"] }
	for metric, fact := range map[string]string{"istio_request_bytes_sum": "request_bytes", "istio_response_bytes_sum": "response_bytes"} {
		want := counted{}
		for _, service := range []string{"plain", "guess"} {
			want.add(service, b.facts[service+" "+fact])
		}
		b.diff("the store's "+metric, want, b.stored(metric+`{reporter="source"}`, "destination_service_name", by))
	}
}

// messages wants that each gRPC message was counted once on each side.
func (b *books) messages() {
	b.t.Helper()
	by := func(l map[string]string) string { return l["reporter"] + " " + l["destination_service_name"] }
	_, pods, err := ledger.Read(b.ledgers)
	if err != nil {
		b.t.Fatal(err)
	}
	for metric, facts := range map[string][2]string{
		"istio_request_messages_total":  {"grpc_out", "grpc_in"},
		"istio_response_messages_total": {"grpc_in", "grpc_out"},
	} {
		want := counted{}
		for _, service := range []string{"plain", "guess"} {
			want.add("source "+service, b.facts[service+" "+facts[0]])
			for pod, f := range pods {
				if strings.HasPrefix(pod, service+"-") {
					want.add("destination "+service, f[facts[1]])
				}
			}
		}
		b.diff("the store's "+metric, want, b.stored(metric, "reporter, destination_service_name", by))
	}
}

// ends makes requests that end early, by either side, before and in the middle
// of the response.
func (b *books) ends() {
	b.t.Helper()
	for version := 1; version <= 2; version++ {
		reset := "UC"
		if version == 2 {
			reset = "UR"
		}
		for _, c := range []struct {
			how, flags string
			code       int
		}{
			{"abort before", "DC", 0},
			{"abort middle", "DC", 200},
			{"leave before", "DC", 0},
			{"reset before", "-", 503}, // the server's proxy answers for it
			{"reset middle", reset, 200},
		} {
			if version == 2 && c.how == "leave before" {
				continue // HTTP/2 tells the server at once
			}
			b.do(order.Order{Op: "held", Addr: "one:8080", Service: "one", Version: version, How: c.how, Flags: c.flags, Code: c.code, N: 5})
		}
	}
}

// answers makes requests that a proxy answers by itself.
func (b *books) answers() {
	b.t.Helper()
	get := func(host string) string { return "GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n" }
	b.do(order.Order{Op: "raw", Addr: "empty:8080", Service: "empty", Text: get("empty:8080"), Code: 503, Flags: "UH", N: 7})
	b.do(order.Order{Op: "raw", Addr: "deaf:8080", Service: "deaf", Text: get("deaf:8080"), Code: 503, Flags: "-", N: 7})
	b.unattributed += 7
	b.refused[ledger.Entry{Service: "deaf", Protocol: "http", Code: 503, Flags: "UF"}] += 7
	// What is no HTTP is refused before it is known whom it was meant for.
	smuggled := "POST / HTTP/1.1\r\nHost: one:8080\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
	b.do(order.Order{Op: "raw", Addr: "one:8080", Service: "unknown", Text: smuggled, Code: 400, Flags: "DPE", N: 7})
	// Outside of the mesh, where nobody listens.
	b.do(order.Order{
		Op: "raw", Addr: nowhere(b.t), Service: "PassthroughCluster", Text: get("nobody.example"), Code: 503, Flags: "UF", N: 7,
	})
}

// nowhere is an address of this machine that programs reach and at which
// nothing listens.
func nowhere(t *testing.T) string {
	t.Helper()
	return netip.AddrPortFrom(hostAddr(t), 9).String() // discard, which nobody runs
}
