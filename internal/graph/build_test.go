package graph_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/graph"
)

type queryFunc func(expr string) ([]graph.Sample, error)

func (f queryFunc) Query(_ context.Context, expr string, _ time.Time) ([]graph.Sample, error) {
	return f(expr)
}

func TestBuildErrors(t *testing.T) {
	none := queryFunc(func(string) ([]graph.Sample, error) { return nil, nil })
	if _, err := graph.Build(t.Context(), none, graph.Options{Window: time.Millisecond}); err == nil {
		t.Error("a window of 1 ms was accepted")
	}
	// The error of each single query is the error of the whole.
	for n := range 5 {
		calls := 0
		failing := queryFunc(func(string) ([]graph.Sample, error) {
			calls++
			if calls == n+1 {
				return nil, errors.New("no store")
			}
			return nil, nil
		})
		if _, err := graph.Build(t.Context(), failing, graph.Options{}); err == nil || !strings.Contains(err.Error(), "no store") {
			t.Errorf("query %d failed: got %v", n+1, err)
		}
	}
	odd := queryFunc(func(expr string) ([]graph.Sample, error) {
		if strings.Contains(expr, "_bucket") {
			return []graph.Sample{{Labels: map[string]string{"le": "much"}, Value: 1}}, nil
		}
		return nil, nil
	})
	if _, err := graph.Build(t.Context(), odd, graph.Options{}); err == nil || !strings.Contains(err.Error(), `"much"`) {
		t.Errorf("bound that is no number: got %v", err)
	}
}

func TestEmptyGraph(t *testing.T) {
	none := queryFunc(func(string) ([]graph.Sample, error) { return nil, nil })
	g, err := graph.Build(t.Context(), none, graph.Options{At: time.Unix(0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := g.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	const want = `{
  "at": "1970-01-01T00:00:00Z",
  "windowSeconds": 60,
  "effectiveSeconds": 60,
  "nodes": [],
  "edges": []
}
`
	if b.String() != want {
		t.Errorf("got %s", b.String())
	}
	full := errors.New("no space")
	for name, write := range map[string]func() error{
		"json":    func() error { return g.WriteJSON(failingWriter{full}) },
		"table":   func() error { return g.WriteTable(failingWriter{full}) },
		"dot":     func() error { return g.WriteDOT(failingWriter{full}) },
		"mermaid": func() error { return g.WriteMermaid(failingWriter{full}) },
	} {
		if err := write(); !errors.Is(err, full) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// Latencies are those of histogram_quantile() over the merged buckets of all
// replicas, for any distribution.
func TestLatencyIsHistogramQuantile(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	bounds := []float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, math.Inf(1)}
	for round := range 40 {
		var script strings.Builder
		script.WriteString(`up{job="p"} 1x40` + "\n")
		for replica := range 1 + rnd.IntN(3) {
			total := 0
			for _, le := range bounds {
				if rnd.IntN(2) == 0 {
					total += rnd.IntN(1000)
				}
				if math.IsInf(le, 1) && round == 0 {
					total += 5 // something at least
				}
				fmt.Fprintf(&script, "istio_request_duration_milliseconds_bucket{le=\"%v\",pod=\"%d\",%s} 0+%dx40\n", le, replica, shopEdge, total)
			}
			fmt.Fprintf(&script, "istio_requests_total{pod=\"%d\",response_code=\"200\",%s} 0+%dx40\n", replica, shopEdge, total)
		}
		q := load(t, script.String())
		at := time.Unix(120, 0)
		g, err := graph.Build(t.Context(), q, graph.Options{At: at})
		if err != nil {
			t.Fatal(err)
		}
		if len(g.Edges) == 0 || g.Edges[0].Latency == nil {
			continue // nothing was drawn
		}
		got := *g.Edges[0].Latency
		for quantile, have := range map[string]float64{"0.5": got.P50, "0.9": got.P90, "0.95": got.P95, "0.99": got.P99} {
			want, err := q.Query(t.Context(), "histogram_quantile("+quantile+", sum by (le) (increase(istio_request_duration_milliseconds_bucket[1m] anchored)))", at)
			if err != nil || len(want) != 1 {
				t.Fatal(want, err)
			}
			if math.Abs(have-want[0].Value) > 1e-9*want[0].Value {
				t.Errorf("round %d: quantile %s is %v, want %v", round, quantile, have, want[0].Value)
			}
		}
	}
}

const shopEdge = `reporter="destination",source_workload="a",source_workload_namespace="shop",` +
	`destination_workload="b",destination_workload_namespace="shop",destination_service="b.shop.svc.cluster.local",` +
	`destination_service_name="b",destination_service_namespace="shop",request_protocol="http"`

// No two edges have the same ends, service and protocol, and every node has an
// edge, whatever the metrics say.
func TestNoDuplicatesNoGhosts(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	pick := func(of ...string) string { return of[rnd.IntN(len(of))] }
	for range 500 {
		var samples []graph.Sample
		for range rnd.IntN(30) {
			samples = append(samples, graph.Sample{Value: float64(1 + rnd.IntN(9)), Labels: map[string]string{
				"reporter":                       pick("source", "destination", "waypoint"),
				"source_workload":                pick("a", "b", "unknown", ""),
				"source_workload_namespace":      pick("x", "y", "unknown"),
				"source_version":                 pick("v1", "unknown", ""),
				"destination_workload":           pick("a", "b", "unknown"),
				"destination_workload_namespace": pick("x", "unknown"),
				"destination_version":            pick("v1", "v2", "unknown", ""),
				"destination_service":            pick("s.x.svc.cluster.local", "unknown"),
				"destination_service_name":       pick("s", "PassthroughCluster", "BlackHoleCluster", "unknown"),
				"request_protocol":               pick("http", "grpc"),
				"response_code":                  pick("200", "503", "0"),
				"response_flags":                 pick("-", "UF", "DC"),
			}})
		}
		q := queryFunc(func(expr string) ([]graph.Sample, error) {
			if strings.Contains(expr, "istio_requests_total") {
				return samples, nil
			}
			return nil, nil
		})
		g, err := graph.Build(t.Context(), q, graph.Options{})
		if err != nil {
			t.Fatal(err)
		}
		linked := map[string]bool{}
		seen := map[string]bool{}
		for _, e := range g.Edges {
			k := e.Source + "|" + e.Destination + "|" + e.Service + "|" + string(e.Protocol)
			if seen[k] {
				t.Fatalf("two edges %s", k)
			}
			seen[k] = true
			linked[e.Source], linked[e.Destination] = true, true
			if e.Requests <= 0 {
				t.Fatalf("ghost %s", k)
			}
		}
		for _, n := range g.Nodes {
			if !linked[n.ID] {
				t.Fatalf("node %s without an edge", n.ID)
			}
			delete(linked, n.ID)
		}
		if len(linked) > 0 {
			t.Fatalf("no nodes for %v", linked)
		}
	}
}
