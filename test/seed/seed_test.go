package seed

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
	"github.com/vitrine-mesh/vitrine/internal/meshtest"
)

// exceptions are the expressions of the article that have no answer yet, and
// why. One that gets an answer is a failure of the test: then it goes from here.
var exceptions = map[string]string{
	"mTLS Monitoring: mTLS connections": "there is no mutual TLS in the mesh yet",
	"Performance Impact: Latency added by sidecar": "http_request_duration_seconds is a metric of an application's own, which nobody " +
		"instrumented; and the label sets of both sides never match, in Istio neither",
}

// TestSeed is the article, as root and as an ordinary user.
func TestSeed(t *testing.T) {
	users := map[string]bool{"ordinary user": os.Geteuid() == 0}
	if os.Geteuid() == 0 {
		users["root"] = false
	}
	for _, name := range slices.Sorted(maps.Keys(users)) {
		t.Run(name, func(t *testing.T) { story(t, users[name]) })
	}
}

func story(t *testing.T, asUser bool) {
	t.Helper()
	shop, webApp := layOut(t)
	ledger := filepath.Join(meshtest.MakeDir(t, filepath.Join(bin.Root, "ledger")), "ledger.json")
	if err := os.RemoveAll(ledger); err != nil {
		t.Fatal(err)
	}
	// Nothing is published, since other tests may run at the same time; more
	// visits, and the ledger in a file.
	demo := filepath.Dir(shop)
	edits := []string{"  type: LoadBalancer\n", "", `{name: RATE, value: "20"}`, `{name: RATE, value: "60"}
        - {name: LEDGER, value: ` + ledger + `}`}
	edit(t, demo, filepath.Join(bin.Module, "demo", "shop.yaml"), edits...)
	rules, err := filepath.Abs("testdata/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	rules = edit(t, bin.Root, rules)
	begin := time.Now()
	m := meshtest.Start(t, &bin, meshtest.Options{Files: []string{shop, webApp}, Rules: []string{rules}, Watch: true, AsUser: asUser})
	t.Logf("%d programs ready after %.1f s", len(m.Pods()), time.Since(begin).Seconds())
	wantEdges(t, m)
	wantAnswers(t, m)
	wantNames(t, m)
	closeShop(t, m, shop, ledger)
	wantLedger(t, m, ledger)
	wantRules(t, m)
	visit(t, m)
}

// wantEdges wants the graph to show the edges of demo/edges.txt and no others,
// while the load runs.
func wantEdges(t *testing.T, m *meshtest.Mesh) {
	t.Helper()
	want := words(t, filepath.Join(bin.Module, "demo", "edges.txt"))
	slices.Sort(want)
	meshtest.Eventually(t, func() error {
		got, err := edges(m.CLI("graph", "-o", "json", "--window", "1m"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return errors.New("edges of the graph (-edges.txt +graph)\n" + diff)
		}
		return nil
	})
}

// edges lists the distinct workload, service and protocol of a graph's edges.
func edges(text string) ([]string, error) {
	var g struct {
		Nodes []struct{ ID, Kind, Workload string }
		Edges []struct{ Source, Destination, Service, Protocol string }
	}
	if err := json.Unmarshal([]byte(text), &g); err != nil {
		return nil, fmt.Errorf("graph: %w", err)
	}
	name := map[string]string{}
	for _, n := range g.Nodes {
		name[n.ID] = n.Workload
		if n.Kind != "workload" {
			name[n.ID] = n.Kind
		}
	}
	set := map[string]bool{}
	for _, e := range g.Edges {
		service, _, _ := strings.Cut(e.Service, ".")
		if name[e.Destination] == "unknown" || name[e.Destination] == "passthrough" {
			service = name[e.Destination]
		}
		set[name[e.Source]+" "+service+" "+e.Protocol] = true
	}
	return slices.Sorted(maps.Keys(set)), nil
}

// closeShop takes the load out of the file, at which it ends its visits, writes
// its ledger and goes.
func closeShop(t *testing.T, m *meshtest.Mesh, shop, ledger string) {
	t.Helper()
	data, err := os.ReadFile(shop)
	if err != nil {
		t.Fatal(err)
	}
	i := strings.Index(string(data), "# Visitors.")
	if i < 0 {
		t.Fatal("shop.yaml has no visitors at its end any more")
	}
	// At once: the mesh watches the file, and half of one is a wrong one.
	without := filepath.Join(bin.Root, "without-load.yaml") // of the same file system
	if err := os.WriteFile(without, data[:i], 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(without, shop); err != nil {
		t.Fatal(err)
	}
	meshtest.Eventually(t, func() error {
		if _, err := os.Stat(ledger); err != nil {
			return fmt.Errorf("the load has not ended: %w", err)
		}
		if i := slices.IndexFunc(m.Pods(), func(p daemon.Pod) bool { return p.App == "load" }); i >= 0 {
			return errors.New("the load's pod is still there")
		}
		return nil
	})
	m.WaitScraped()
}

type expression struct{ name, expr string }

// article reads testdata/seed.txt.
func article(t *testing.T) []expression {
	t.Helper()
	data, err := os.ReadFile("testdata/seed.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out []expression
	for _, part := range strings.Split(string(data), "\n== ")[1:] {
		name, expr, _ := strings.Cut(part, "\n")
		out = append(out, expression{name, strings.TrimSpace(expr)})
	}
	return out
}

// wantAnswers asks every expression of the article of the running shop, until
// all have data.
func wantAnswers(t *testing.T, m *meshtest.Mesh) {
	t.Helper()
	expressions := article(t)
	if len(expressions) != 21 {
		t.Errorf("%d expressions in testdata/seed.txt, 21 in the article", len(expressions))
	}
	meshtest.Eventually(t, func() error {
		var errs []error
		for _, e := range expressions {
			if _, excepted := exceptions[e.name]; !excepted {
				errs = append(errs, answered(m, e))
			}
		}
		return errors.Join(errs...)
	})
	used := 0
	for _, e := range expressions {
		reason, excepted := exceptions[e.name]
		if !excepted {
			continue
		}
		used++
		if answered(m, e) == nil {
			t.Errorf("%s has an answer now: take it from the exceptions (%s)", e.name, reason)
		}
	}
	if used != len(exceptions) {
		t.Errorf("%d exceptions, %d of them in the article", len(exceptions), used)
	}
	t.Logf("%d of %d expressions of the article have data, %d excepted", len(expressions)-used, len(expressions), used)
}

// wantNames wants data of every metric that the article names under "Available
// Metrics"; of a histogram these are its series.
func wantNames(t *testing.T, m *meshtest.Mesh) {
	t.Helper()
	for _, name := range []string{
		"istio_requests_total", "istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes",
		"istio_tcp_sent_bytes_total", "istio_tcp_received_bytes_total",
		"istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total",
	} {
		expr := `{__name__=~"` + name + `(_bucket)?"}`
		if name == "istio_tcp_connections_closed_total" {
			expr = name // of the shop's only TCP connections none may have ended: the series is there
			samples, err := m.Query(expr)
			if err != nil || len(samples) == 0 {
				t.Errorf("%s: %d series, %v", name, len(samples), err)
			}
			continue
		}
		if err := answered(m, expression{name, expr}); err != nil {
			t.Error(err)
		}
	}
}

// answered reports why an expression has no answer above zero.
func answered(m *meshtest.Mesh, e expression) error {
	samples, err := m.Query(e.expr)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", e.name, err)
	case len(samples) == 0:
		return fmt.Errorf("%s: no data for\n%s", e.name, e.expr)
	case !slices.ContainsFunc(samples, func(s meshtest.Sample) bool { return s.Value > 0 && !math.IsInf(s.Value, 0) }):
		return fmt.Errorf("%s: no value of %d is above zero", e.name, len(samples))
	}
	return nil
}

// visit calls the article's own web-app and holds the figures against the calls.
func visit(t *testing.T, m *meshtest.Mesh) {
	t.Helper()
	visitor := m.Run("--service", "visitor", "--namespace", "article", "--", bin.Path("visitor"))
	for range 2 { // so that each series has grown between two scrapes
		var codes map[string]int
		visitor.Call("visit", &codes)
		if diff := cmp.Diff(map[string]int{"200": 56, "500": 16}, codes); diff != "" {
			t.Errorf("the visitor was answered (-want +got)\n%s", diff)
		}
		m.WaitScraped()
	}
	wantFigures(t, m)
}

// wantFigures holds some answers against what the visitor did.
func wantFigures(t *testing.T, m *meshtest.Mesh) {
	t.Helper()
	const webApp = `istio_requests_total{destination_service="web-app.article.svc.cluster.local"}`
	want := map[string]int{
		"source visitor 200": 112, "source visitor 500": 32, "destination visitor 200": 112, "destination visitor 500": 32,
	}
	if diff := cmp.Diff(want, increases(t, m, webApp, "reporter", "source_app", "response_code")); diff != "" {
		t.Errorf("requests of web-app (-visitor +counted)\n%s", diff)
	}
	want = map[string]int{"source backend.article.svc.cluster.local": 144, "destination backend.article.svc.cluster.local": 144}
	if diff := cmp.Diff(want, increases(t, m, `istio_requests_total{source_app="web-app",source_workload_namespace="article"}`, "reporter", "destination_service")); diff != "" {
		t.Errorf("requests by web-app (-visitor +counted)\n%s", diff)
	}
	for _, e := range article(t) {
		if e.name != "Prometheus Queries: Success rate" {
			continue
		}
		samples, err := m.Query(strings.ReplaceAll(e.expr, "web-app.default", "web-app.article"))
		if err != nil || len(samples) != 1 || math.Abs(samples[0].Value-112.0/144) > 0.02 { // rate() extrapolates each series
			t.Errorf("success rate %v, %v; want %.3f", samples, err, 112.0/144)
		}
	}
}

// wantRules wants the article's alerting rules to be loaded and evaluated.
func wantRules(t *testing.T, m *meshtest.Mesh) {
	t.Helper()
	type rule struct{ Name, Query, Health, Type, LastError string }
	meshtest.Eventually(t, func() error {
		var data struct {
			Groups []struct {
				Name  string
				Rules []rule
			}
		}
		if err := m.API("rules", &data); err != nil {
			return err
		}
		got := map[string]string{}
		for _, g := range data.Groups {
			for _, r := range g.Rules {
				got[g.Name+" "+r.Name] = r.Type + " " + r.Health + r.LastError
			}
		}
		want := map[string]string{"istio HighErrorRate": "alerting ok", "istio HighLatency": "alerting ok"}
		if diff := cmp.Diff(want, got); diff != "" {
			return errors.New("rules (-want +got)\n" + diff)
		}
		return nil
	})
}
