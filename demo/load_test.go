package demo

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/manifest"
)

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
	// Not without a pause: the shop needs the processor.
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var l ledger
	for deadline := time.Now().Add(patience); len(l.Requests) < 10; <-tick.C { // nine kinds, and checkout with two statuses
		if time.Now().After(deadline) {
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
