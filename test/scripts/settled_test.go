package scripts

import (
	"strings"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
	"github.com/vitrine-mesh/vitrine/internal/meshtest"
)

// pair is a program that asks another one. That one is ready last.
const pair = `
apiVersion: v1
kind: Service
metadata: {name: front}
spec:
  type: LoadBalancer
  selector: {app: front}
  ports: [{name: http, port: PORT, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: front}
spec:
  selector: {matchLabels: {app: front}}
  template:
    metadata: {labels: {app: front}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: front
        command: [HELLO, relay, "http://back:8080/", "8080"]
        ports: [{containerPort: 8080}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: back}
spec:
  selector: {app: back}
  ports: [{name: http, port: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: back}
spec:
  selector: {matchLabels: {app: back}}
  template:
    metadata: {labels: {app: back}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: back
        command: [HELLO, serve, "8080"]
        env: [{name: NAME, value: back}, {name: VERSION, value: v1}]
        ports: [{containerPort: 8080}]
        readinessProbe: {tcpSocket: {port: 8080}, initialDelaySeconds: 3, periodSeconds: 1}
`

// TestSettledIsKnown: once the mesh says that it has settled, every proxy knows
// every endpoint, and the first request is answered.
func TestSettledIsKnown(t *testing.T) {
	port, err := bins.Port()
	if err != nil {
		t.Fatal(err)
	}
	yaml := strings.NewReplacer("PORT", port, "HELLO", bins.Path("hello")).Replace(pair)
	m := meshtest.Prepare(t, &bins, meshtest.Options{YAML: yaml})
	m.Up()
	limit := time.Now().Add(meshtest.Patience)
	var s daemon.Status
	tick := time.NewTicker(time.Millisecond) // the moment matters, but the programs need the processors, too
	defer tick.Stop()
	for !s.Settled {
		<-tick.C
		if s, err = m.Client.Status(t.Context()); time.Now().After(limit) {
			t.Fatalf("not settled after %s: %+v, %v", meshtest.Patience, s, err)
		}
	}
	got, err := m.Get("http://127.0.0.1:" + port + "/")
	if want := "hello from back v1\n"; err != nil || string(got) != want {
		t.Errorf("the first request got %q, %v, want %q", got, err, want)
	}
	m.WaitSettled()
}
