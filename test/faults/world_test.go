package faults

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
	"github.com/vitrine-mesh/vitrine/internal/meshtest"
)

// manifest is a small mesh: two services that are called, a program that calls
// them without pause, and one that is only there.
const manifest = `
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        command: [HELLO, serve]
        ports: [{containerPort: 8080}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: caller}
spec:
  type: LoadBalancer
  selector: {app: caller}
  ports: [{name: http, port: PORT, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: caller}
spec:
  selector: {matchLabels: {app: caller}}
  template:
    metadata: {labels: {app: caller}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: caller
        command: [HELLO, poll, "http://web:8080/", "8080"]
        ports: [{containerPort: 8080}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: db
        command: [HELLO, serve, "5432"]
        ports: [{containerPort: 5432}]
`

// workloads is the number of pods of manifest.
const workloads = 6

// world is one mesh whose control plane is started and killed by the test.
type world struct {
	*meshtest.Mesh
	t     *testing.T
	port  string   // of the caller
	links []string // network interfaces of the machine before
}

func newWorld(t *testing.T, asUser bool) *world {
	t.Helper()
	port, err := bins.Port()
	if err != nil {
		t.Fatal(err)
	}
	yaml := strings.NewReplacer("PORT", port, "HELLO", bins.Path("hello")).Replace(manifest)
	return &world{
		Mesh: meshtest.Prepare(t, &bins, meshtest.Options{YAML: yaml, Scrape: 5 * time.Second, AsUser: asUser}),
		t:    t, port: port, links: links(t),
	}
}

// settled waits until everything runs and every proxy is told so, and returns
// the pods. It does not wait until what was restarted is trusted again, as
// WaitSettled does.
func (w *world) settled() []daemon.Pod {
	w.t.Helper()
	var pods []daemon.Pod
	meshtest.Eventually(w.t, func() error {
		var err error
		if pods, err = w.ListPods(); err != nil {
			return err
		}
		if len(pods) != workloads {
			return fmt.Errorf("there are %d pods, want %d", len(pods), workloads)
		}
		for i := range pods {
			if p := &pods[i]; !p.Ready || !p.Proxy.Synced || len(p.PIDs) != 1 {
				return fmt.Errorf("%s: ready %t, proxy %+v, processes %v", p.Name, p.Ready, p.Proxy, p.PIDs)
			}
		}
		return nil
	})
	return pods
}

// calls is how the caller fared so far.
type calls struct {
	OK     int    `json:"ok"`
	Failed int    `json:"failed"`
	Last   string `json:"last"` // error of the last call that failed
}

func (w *world) calls() calls {
	w.t.Helper()
	var c calls
	body, err := w.Get("http://127.0.0.1:" + w.port + "/")
	if err == nil {
		err = json.Unmarshal(body, &c)
	}
	if err != nil {
		w.t.Fatalf("the caller answered %q: %v", body, err)
	}
	return c
}

// flowing waits until the caller has made n more calls, and returns how it fares.
func (w *world) flowing(since calls, n int) calls {
	w.t.Helper()
	var now calls
	meshtest.Eventually(w.t, func() error {
		if now = w.calls(); now.OK < since.OK+n {
			return fmt.Errorf("%d calls succeeded in time", now.OK-since.OK)
		}
		return nil
	})
	return now
}
