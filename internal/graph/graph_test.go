package graph_test

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"

	"github.com/vitrine-mesh/vitrine/internal/graph"
)

// TestGraph runs the stories in testdata. Each loads samples, five seconds
// apart from time 0 on, and prints graphs of them:
//
//	load
//	PROTOCOL REPORTER NS/WORKLOAD[@VERSION] -> NS/WORKLOAD[@VERSION] HOST [key=value…] | VALUES
//	other PromQL test series
//	----
//
//	graph at=5m [window=1m] [format=table|json|dot|mermaid] [namespace=NS] [extrapolate]
//	----
//
// "-" stands for a party or host that is not known. VALUES are those of
// the request counter (http, grpc), or of all counters times their factors (tcp,
// messages): numbers, START+STEPxCOUNT, _xCOUNT for no sample, or stale.
func TestGraph(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		t.Helper()
		var q querier
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			t.Helper()
			switch d.Cmd {
			case "load":
				q = load(t, d.Input)
				return ""
			case "graph":
				return runGraph(t, d, q)
			}
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		})
	})
}

func runGraph(t *testing.T, d *datadriven.TestData, q querier) string {
	t.Helper()
	o := graph.Options{Extrapolate: d.HasArg("extrapolate")}
	format := "table"
	for _, arg := range d.CmdArgs {
		value := strings.Join(arg.Vals, ",")
		switch arg.Key {
		case "at":
			o.At = time.Unix(0, 0).Add(duration(t, value))
		case "window":
			o.Window = duration(t, value)
		case "format":
			format = value
		case "namespace":
			o.Namespace = value
		}
	}
	counting := &counter{q: q}
	g, err := graph.Build(t.Context(), counting, o)
	if err != nil {
		return "error: " + err.Error()
	}
	if counting.n > 5 {
		t.Errorf("%d queries for one graph", counting.n)
	}
	var b strings.Builder
	switch format {
	case "table":
		err = g.WriteTable(&b)
	case "json":
		err = g.WriteJSON(&b)
	case "dot":
		err = g.WriteDOT(&b)
	case "mermaid":
		err = g.WriteMermaid(&b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

type counter struct {
	q graph.Querier
	n int
}

func (c *counter) Query(ctx context.Context, expr string, at time.Time) ([]graph.Sample, error) {
	c.n++
	return c.q.Query(ctx, expr, at)
}

func duration(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// querier is Prometheus's own engine over its own storage.
type querier struct {
	engine *promql.Engine
	store  storage.Queryable
}

func (q querier) Query(ctx context.Context, expr string, at time.Time) ([]graph.Sample, error) {
	query, err := q.engine.NewInstantQuery(ctx, q.store, nil, expr, at)
	if err != nil {
		return nil, err
	}
	defer query.Close()
	vector, err := query.Exec(ctx).Vector()
	if err != nil {
		return nil, err
	}
	var out []graph.Sample
	for _, s := range vector {
		m := map[string]string{}
		s.Metric.Range(func(l labels.Label) { m[l.Name] = l.Value })
		out = append(out, graph.Sample{Labels: m, Value: s.F})
	}
	return out, nil
}

func load(t *testing.T, input string) querier {
	t.Helper()
	var script strings.Builder
	script.WriteString("load 5s\n")
	for line := range strings.Lines(input) {
		line = strings.TrimSpace(line)
		switch protocol, _, _ := strings.Cut(line, " "); protocol {
		case "http", "grpc", "tcp", "messages":
			script.WriteString(series(t, line))
		default:
			fmt.Fprintf(&script, "  %s\n", line)
		}
	}
	store := promqltest.LoadedStorage(t, script.String())
	t.Cleanup(func() { store.Close() })
	engine := promqltest.NewTestEngineWithOpts(t, promql.EngineOpts{
		MaxSamples: 1e6, Timeout: time.Minute, EnableAtModifier: true, EnableNegativeOffset: true,
		NoStepSubqueryIntervalFn: func(int64) int64 { return 15000 },
		Parser:                   parser.NewParser(parser.Options{EnableExtendedRangeSelectors: true}),
	})
	return querier{engine, store}
}

// series writes what one proxy exposes for one kind of traffic.
func series(t *testing.T, line string) string {
	t.Helper()
	head, tail, ok := strings.Cut(line, " | ")
	f := strings.Fields(head)
	if !ok || len(f) < 6 || f[3] != "->" {
		t.Fatalf("not a line of traffic: %s", line)
	}
	protocol, values := f[0], expand(t, tail)
	args := map[string]string{"code": "200", "flags": "-", "ms": "5", "sent": "1000", "received": "2000", "opened": "1"}
	for _, a := range f[6:] {
		k, v, _ := strings.Cut(a, "=")
		args[k] = v
	}
	l := map[string]string{"reporter": f[1], "connection_security_policy": "unknown"}
	party(l, "source", f[2])
	party(l, "destination", f[4])
	if host := strings.ReplaceAll(f[5], "%1b", "\x1b"); host != "-" {
		l["destination_service"] = host
		parts := strings.Split(host+"..", ".")
		l["destination_service_name"], l["destination_service_namespace"] = parts[0], parts[1]
	}
	for k, label := range map[string]string{
		"name": "destination_service_name", "tls": "connection_security_policy", "status": "grpc_response_status",
	} {
		if v, ok := args[k]; ok {
			l[label] = v
		}
	}
	var b strings.Builder
	put := func(metric string, factor string, more ...string) {
		n, err := strconv.ParseFloat(factor, 64)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "  %s{", metric)
		for k, v := range l {
			fmt.Fprintf(&b, "%s=%q,", k, v)
		}
		b.WriteString(strings.Join(more, ",") + "}")
		for _, v := range values {
			switch {
			case math.IsNaN(v):
				b.WriteString(" _")
			case math.IsInf(v, -1):
				b.WriteString(" stale")
			default:
				fmt.Fprintf(&b, " %g", v*n)
			}
		}
		b.WriteByte('\n')
	}
	switch protocol {
	case "http", "grpc":
		l["request_protocol"], l["response_code"], l["response_flags"] = protocol, args["code"], args["flags"]
		put("istio_requests_total", "1")
		bound, err := strconv.ParseFloat(args["ms"], 64)
		if err != nil {
			t.Fatal(err)
		}
		for _, le := range []float64{1, 5, 10, 25, 100, math.Inf(1)} {
			factor := "0"
			if le >= bound {
				factor = "1"
			}
			put("istio_request_duration_milliseconds_bucket", factor, fmt.Sprintf("le=\"%v\"", le))
		}
		put("istio_request_bytes_sum", args["sent"])
		put("istio_response_bytes_sum", args["received"])
	case "tcp":
		l["request_protocol"], l["response_flags"] = protocol, args["flags"]
		put("istio_tcp_received_bytes_total", args["sent"])
		put("istio_tcp_sent_bytes_total", args["received"])
		put("istio_tcp_connections_opened_total", args["opened"])
	case "messages":
		put("istio_request_messages_total", args["sent"])
		put("istio_response_messages_total", args["received"])
	}
	return b.String()
}

func party(l map[string]string, side, s string) {
	if s == "-" {
		for _, label := range []string{"_workload", "_workload_namespace", "_app", "_version"} {
			l[side+label] = "unknown"
		}
		return
	}
	namespace, name, _ := strings.Cut(s, "/")
	name, version, _ := strings.Cut(name, "@")
	l[side+"_workload"], l[side+"_workload_namespace"] = name, namespace
	l[side+"_app"], _, _ = strings.Cut(name, "-")
	l[side+"_version"] = version // "" is no label, as for a program without one
}

// expand reads VALUES; NaN is no sample, minus infinity the end of a series.
func expand(t *testing.T, s string) []float64 {
	t.Helper()
	var out []float64
	number := func(s string) float64 {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for f := range strings.FieldsSeq(s) {
		head, count, many := strings.Cut(f, "x")
		start, step, _ := strings.Cut(head, "+")
		switch {
		case f == "stale":
			out = append(out, math.Inf(-1))
		case !many && f == "_":
			out = append(out, math.NaN())
		case !many:
			out = append(out, number(f))
		case start == "_":
			for range int(number(count)) {
				out = append(out, math.NaN())
			}
		default:
			if step == "" {
				step = "0"
			}
			for i := range int(number(count)) + 1 {
				out = append(out, number(start)+float64(i)*number(step))
			}
		}
	}
	return out
}
