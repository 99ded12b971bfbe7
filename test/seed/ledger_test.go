package seed

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/meshtest"
)

// ledger is what the shop's load writes down: what it asked, and what follows
// from that between the shop's services.
type ledger struct {
	Requests []struct {
		Kind        string
		Code, Count int
	}
	Edges []struct {
		Source, Destination string
		Count               int
	}
	Exact bool
}

// wantLedger wants both reporters to say of each edge of the shop what follows
// from the load's ledger, to the request.
func wantLedger(t *testing.T, m *meshtest.Mesh, path string) {
	t.Helper()
	var ledger ledger
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &ledger); err != nil {
		t.Fatal(err)
	}
	if !ledger.Exact {
		t.Fatalf("not every request was answered as expected: %s", data)
	}
	total := 0
	edges, codes := map[string]int{}, map[string]int{}
	for _, reporter := range []string{"source", "destination"} {
		for _, e := range ledger.Edges {
			edges[fmt.Sprintf("%s %s %s", reporter, e.Source, e.Destination)] = e.Count
			total += e.Count
		}
		for _, r := range ledger.Requests {
			codes[fmt.Sprintf("%s %d", reporter, r.Code)] += r.Count
		}
	}
	got := increases(t, m, `istio_requests_total`, "reporter", "source_app", "destination_app")
	if diff := cmp.Diff(edges, got); diff != "" {
		t.Errorf("requests of each edge (-ledger +counted)\n%s", diff)
	}
	got = increases(t, m, `istio_requests_total{source_app="load"}`, "reporter", "response_code")
	if diff := cmp.Diff(codes, got); diff != "" {
		t.Errorf("requests of the load by code (-ledger +counted)\n%s", diff)
	}
	wantFigureOf(t, m, &ledger)
	t.Logf("ledger: %d requests on %d edges, all counted by both reporters", total/2, len(ledger.Edges))
}

// wantFigureOf holds the figures of the article's own expressions against the
// ledger. Of each the range function alone is another: what rate() estimates of
// five minutes is counted exactly over the whole life of the mesh (see package
// truth). As in the article, nothing chooses a reporter: every request counts
// twice.
func wantFigureOf(t *testing.T, m *meshtest.Mesh, l *ledger) {
	t.Helper()
	const webApp = "web-app"
	host := func(app string) string { return app + ".default.svc.cluster.local" }
	asked, failed := 0, 0 // of the load at web-app
	for _, r := range l.Requests {
		asked += r.Count
		if r.Code >= 500 {
			failed += r.Count
		}
	}
	to, incoming, outgoing, all := map[string]float64{}, map[string]float64{}, map[string]float64{}, map[string]float64{}
	for _, e := range l.Edges {
		n := 2 * float64(e.Count)
		to[host(e.Destination)] += n
		all[e.Source+" "+host(e.Destination)] += n
		if e.Destination == webApp {
			incoming[e.Source] += n
		}
		if e.Source == webApp {
			outgoing[host(e.Destination)] += n
		}
	}
	want := map[string]map[string]float64{
		"Prometheus Queries: Request rate":           {"": 2 * float64(asked)},
		"Prometheus Queries: Error rate":             {"": 2 * float64(failed)},
		"Prometheus Queries: Success rate":           {"": float64(asked-failed) / float64(asked)},
		"Service Dependencies: Incoming traffic":     incoming,
		"Service Dependencies: Outgoing traffic":     outgoing,
		"mTLS Monitoring: Non-mTLS connections":      {"": sum(to)},
		"Real-World Dashboard: Request Rate":         to,
		"Real-World Dashboard: Service Dependencies": all,
	}
	exact := strings.NewReplacer("rate(", "increase(", "[5m]", "[1h] anchored")
	for _, e := range article(t) {
		figures, ok := want[e.name]
		if !ok {
			continue
		}
		delete(want, e.name)
		samples, err := m.Query(exact.Replace(e.expr))
		if err != nil {
			t.Errorf("%s: %v", e.name, err)
			continue
		}
		got := map[string]float64{}
		for _, s := range samples {
			var key []string
			if _, plain := figures[""]; !plain {
				for _, name := range []string{"source_app", "destination_service"} {
					if v := s.Labels[name]; v != "" {
						key = append(key, v)
					}
				}
			}
			got[strings.Join(key, " ")] += s.Value
		}
		if diff := cmp.Diff(figures, got); diff != "" {
			t.Errorf("%s (-ledger +counted)\n%s", e.name, diff)
		}
	}
	for name := range want {
		t.Errorf("the article has no %s", name)
	}
}

func sum(of map[string]float64) float64 {
	total := 0.0
	for _, v := range of {
		total += v
	}
	return total
}

// increases counts a metric exactly: see package truth.
func increases(t *testing.T, m *meshtest.Mesh, metric string, by ...string) map[string]int {
	t.Helper()
	samples, err := m.Query(fmt.Sprintf("sum by (%s) (increase(%s[1h] anchored))", strings.Join(by, ", "), metric))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, s := range samples {
		var key []string
		for _, l := range by {
			key = append(key, s.Labels[l])
		}
		if s.Value != math.Trunc(s.Value) {
			t.Errorf("%v of %v is no whole number", key, s.Value)
		}
		out[strings.Join(key, " ")] += int(s.Value)
	}
	return out
}
