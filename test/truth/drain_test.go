package truth

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/meshtest"
	"github.com/vitrine-mesh/vitrine/test/truth/internal/ledger"
	"github.com/vitrine-mesh/vitrine/test/truth/internal/order"
)

func differ(of string, want, got counted) error {
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Errorf("%s (-ledger +counted)\n%s", of, diff)
	}
	return nil
}

// TestDrain replaces every replica of a Deployment and of a StatefulSet, whose
// replicas come back under the same names and addresses and count from zero,
// while HTTP/1, HTTP/2 and gRPC clients use them: no request is lost, and what
// the proxies counted that ended is not lost either.
func TestDrain(t *testing.T) {
	users(t, func(t *testing.T, asUser bool) {
		t.Helper()
		stateful := strings.NewReplacer("kind: Deployment", "kind: StatefulSet", "spec:\n  replicas:", "spec:\n  serviceName: kept\n  replicas:")
		b := open(t, meshtest.Options{YAML: app("rolling", 3, true) + stateful.Replace(app("kept", 2, true)), AsUser: asUser})
		services := []string{"rolling", "kept"}
		for _, service := range services {
			b.do(order.Order{Op: "drive", Addr: service + ":8080", Service: service, Conns: 8, Rate: 100})
		}
		b.driven(services, 50)
		began := time.Now()
		if _, err := b.mesh.Client.Restart(t.Context(), services); err != nil {
			t.Fatal(err)
		}
		b.replaced(began)
		t.Logf("5 replicas were replaced in %s", time.Since(began).Round(100*time.Millisecond))
		b.driven(services, 50)
		b.halt(services)
		b.agree(true)
		b.report()
		// The load's own proxy ends too, and hands over its last figures.
		want := b.requests()
		b.load.Stop()
		b.diff("the store after the load's end", want, b.stored("istio_requests_total", byWhat, what))
	})
}

// driven waits until each service has been asked n more times.
func (b *books) driven(services []string, n int) {
	b.t.Helper()
	count := func() map[string]int {
		requests, _, err := ledger.Read(b.ledgers)
		if err != nil {
			b.t.Fatal(err)
		}
		out := map[string]int{}
		for _, tally := range requests {
			for e, n := range tally {
				out[e.Service] += n
			}
		}
		return out
	}
	before := count()
	meshtest.Eventually(b.t, func() error {
		now := count()
		for _, s := range services {
			if got := now[s] - before[s]; got < n {
				return fmt.Errorf("%s was asked %d times, want %d", s, got, n)
			}
		}
		return nil
	})
}

// replaced waits until every server was started after a time, and no other is
// left.
func (b *books) replaced(after time.Time) {
	b.t.Helper()
	meshtest.Eventually(b.t, func() error {
		for _, p := range b.mesh.Pods() {
			if p.App != "load" && (!p.Started.After(after) || !p.Ready || p.Reason != "") {
				return fmt.Errorf("%s was started at %s, ready %t %s", p.Name, p.Started.Format(time.StampMilli), p.Ready, p.Reason)
			}
		}
		return nil
	})
}

// halt ends what drives services and books it.
func (b *books) halt(services []string) {
	b.t.Helper()
	for _, service := range services {
		var a order.Answer
		b.load.Call(order.Order{Op: "halt", Service: service}, &a)
		b.book(service, a)
	}
}

// TestRate sends 2,000 requests per second for a minute through two proxies; a
// machine that is busy with other things takes longer, and counts as exactly.
func TestRate(t *testing.T) {
	b := open(t, meshtest.Options{YAML: app("busy", 2, true), Scrape: 5 * time.Second})
	a := b.do(order.Order{Op: "rate", Addr: "busy:8080", Service: "busy", Conns: 64, Rate: 2000, N: 120_000})
	took := time.Duration(a.Facts["milliseconds"]) * time.Millisecond
	b.agree(false)
	if n := b.source.Sum(); n != 120_000 {
		t.Errorf("%d requests were sent, want 120000", n)
	}
	t.Logf("120000 requests in %s, %.0f per second, all counted", took, 120_000/took.Seconds())
}
