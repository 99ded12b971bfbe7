package truth

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/meshtest"
	"github.com/vitrine-mesh/vitrine/test/truth/internal/ledger"
	"github.com/vitrine-mesh/vitrine/test/truth/internal/order"
)

// books is what is known of a mesh from outside of it.
type books struct {
	t       *testing.T
	mesh    *meshtest.Mesh
	load    *meshtest.Program
	ledgers string // directory of the origins

	source ledger.Tally   // what the load counted
	facts  map[string]int // "SERVICE NAME": other numbers of the load
	// refused counts requests that the server's proxy answered because no
	// server was there to write them down.
	refused ledger.Tally
	// unattributed counts requests that a proxy refused unread.
	unattributed int
}

func open(t *testing.T, o meshtest.Options) *books {
	t.Helper()
	ledgers := meshtest.MakeDir(t, t.TempDir()+"/ledgers")
	openTo(t, ledgers)
	o.YAML = strings.NewReplacer("$ORIGIN", bin.Path("origin"), "$LEDGERS", ledgers).Replace(o.YAML)
	b := &books{t: t, ledgers: ledgers, source: ledger.Tally{}, refused: ledger.Tally{}, facts: map[string]int{}}
	b.mesh = meshtest.Start(t, &bin, o)
	b.load = b.mesh.Run("--service", "load", "--version", "v1", "--", bin.Path("load"))
	return b
}

// do lets the load do something and books it.
func (b *books) do(o order.Order) order.Answer {
	b.t.Helper()
	var a order.Answer
	b.load.Call(o, &a)
	b.book(o.Service, a)
	return a
}

func (b *books) book(service string, a order.Answer) {
	b.t.Helper()
	for _, e := range a.Errors {
		b.t.Errorf("%s: %s", service, e)
	}
	b.source.Add(a.Counts)
	for name, n := range a.Facts {
		b.facts[service+" "+name] += n
	}
}

// counted is a set of counters: what is counted to how often.
type counted map[string]int

func (c counted) add(what string, n int) {
	if n != 0 {
		c[what] += n
	}
}

// requests is what istio_requests_total must be.
func (b *books) requests() counted {
	b.t.Helper()
	want := counted{}
	for e, n := range b.source {
		want.add("source load "+e.String(), n)
	}
	for e, n := range b.refused {
		want.add("destination load "+e.String(), n)
	}
	pods, _, err := ledger.Read(b.ledgers)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, tally := range pods {
		for e, n := range tally {
			want.add("destination load "+e.String(), n)
		}
	}
	return want
}

// replicas is what each server's own proxy must have counted, in total.
func (b *books) replicas() counted {
	b.t.Helper()
	want := counted{}
	pods, _, err := ledger.Read(b.ledgers)
	if err != nil {
		b.t.Fatal(err)
	}
	for pod, tally := range pods {
		want.add(pod, tally.Sum())
	}
	return want
}

// what names a series as ledgers do.
func what(l map[string]string) string {
	e := fmt.Sprintf("%s %s %s %s %q %s", l["source_workload"], l["destination_service_name"], l["request_protocol"], l["response_code"], l["grpc_response_status"], l["response_flags"])
	return l["reporter"] + " " + strings.Replace(e, "load-v1", "load", 1)
}

const byWhat = "reporter, source_workload, destination_service_name, request_protocol, response_code, grpc_response_status, response_flags"

// stored asks the store how often a metric was counted, by labels.
func (b *books) stored(metric, by string, name func(map[string]string) string) counted {
	b.t.Helper()
	samples, err := b.mesh.Query(fmt.Sprintf(`sum by (%s) (increase(%s[1h] anchored))`, by, metric))
	if err != nil {
		b.t.Fatal(err)
	}
	got := counted{}
	for _, s := range samples {
		if s.Value != float64(int(s.Value)) {
			b.t.Errorf("%s of %s is %v, which is no whole number", metric, name(s.Labels), s.Value)
		}
		got.add(name(s.Labels), int(s.Value))
	}
	return got
}

// rest waits until no proxy has a request under way, with live TCP connections
// open on each side.
func (b *books) rest(live int) {
	b.t.Helper()
	meshtest.Eventually(b.t, func() error {
		samples, err := b.mesh.ProxyMetrics()
		if err != nil {
			return err
		}
		if err := exposed(samples, "vitrine_requests_in_flight", "vitrine_connections_open",
			"vitrine_telemetry_double_finish_total", "vitrine_telemetry_unattributed_total"); err != nil {
			return err
		}
		for _, s := range samples {
			if s.Labels["__name__"] == "vitrine_requests_in_flight" && s.Value != 0 {
				return fmt.Errorf("%s has %v requests under way, %s", s.Labels["pod"], s.Value, s.Labels["direction"])
			}
		}
		got := sum(samples, "vitrine_connections_open", func(map[string]string) bool { return true })
		if want := 2 * live; got != want {
			return fmt.Errorf("the proxies have %d connections open, want %d", got, want)
		}
		return nil
	})
}

// exposed wants each metric of every proxy: what is not there would count as 0.
func exposed(samples []meshtest.Sample, names ...string) error {
	has := map[string]map[string]bool{} // pod to metric
	for _, s := range samples {
		name, pod := s.Labels["__name__"], s.Labels["pod"]
		if !strings.HasPrefix(name, "vitrine_") {
			continue // of other metrics pod may be a label of their own
		}
		if has[pod] == nil {
			has[pod] = map[string]bool{}
		}
		has[pod][name] = true
	}
	if len(has) == 0 {
		return errors.New("no proxy exposes anything")
	}
	for pod, metrics := range has {
		for _, n := range names {
			if !metrics[n] {
				return fmt.Errorf("the proxy of %s does not expose %s", pod, n)
			}
		}
	}
	return nil
}

func sum(samples []meshtest.Sample, name string, which func(map[string]string) bool) int {
	total := 0.0
	for _, s := range samples {
		if s.Labels["__name__"] == name && which(s.Labels) {
			total += s.Value
		}
	}
	return int(total)
}

// agree wants that all counters of requests, at the proxies and in the store,
// are what the ledgers say. With ended, programs have ended, whose proxies can
// no longer be asked.
func (b *books) agree(ended bool) {
	b.t.Helper()
	b.rest(0)
	var want counted
	if ended {
		want = b.requests()
	} else {
		// Servers write some of what they did down after their answer.
		meshtest.Eventually(b.t, func() error {
			want = b.requests()
			samples, err := b.mesh.ProxyMetrics()
			if err != nil {
				return err
			}
			for _, metric := range []string{
				"istio_requests_total", "istio_request_duration_milliseconds_count", "istio_request_bytes_count", "istio_response_bytes_count",
			} {
				got := counted{}
				for _, s := range samples {
					if s.Labels["__name__"] == metric {
						got.add(what(s.Labels), int(s.Value))
					}
				}
				if err := differ("the proxies' "+metric, want, got); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if len(want) == 0 {
		b.t.Fatal("the ledgers are empty")
	}
	b.mesh.WaitScraped()
	for _, metric := range []string{"istio_requests_total", "istio_request_duration_milliseconds_count"} {
		b.diff("the store's "+metric, want, b.stored(metric, byWhat, what))
	}
	got := b.stored(`istio_requests_total{reporter="destination",response_flags!="UF"}`, "pod", func(l map[string]string) string { return l["pod"] })
	b.diff("the store's requests of each replica", b.replicas(), got)
	samples, err := b.mesh.ProxyMetrics()
	if err != nil {
		b.t.Fatal(err)
	}
	every := func(map[string]string) bool { return true }
	for name, want := range map[string]int{
		"vitrine_telemetry_double_finish_total": 0, "vitrine_telemetry_unattributed_total": b.unattributed,
	} {
		if n := sum(samples, name, every); n != want {
			b.t.Errorf("%s is %d, want %d", name, n, want)
		}
	}
}

func (b *books) diff(of string, want, got counted) {
	b.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		b.t.Errorf("%s (-ledger +counted)\n%s", of, diff)
	}
}

// report prints the figures of a test.
func (b *books) report() {
	total := 0
	services := map[string]int{}
	for e, n := range b.source {
		total += n
		services[e.Service+" "+e.Protocol] += n
	}
	b.t.Logf("%d requests sent and counted on both sides: %v", total, maps.Clone(services))
}
