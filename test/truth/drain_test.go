package truth

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/meshtest"
	"github.com/vitrine-mesh/vitrine/test/truth/internal/order"
)

// liveReport bounds how late a living connection may be counted: the interval
// of reports (5 s) and some room.
const liveReport = 15 * time.Second

func differ(of string, want, got counted) error {
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Errorf("%s (-ledger +counted)\n%s", of, diff)
	}
	return nil
}

// TestDrain replaces every replica of a service while HTTP/1, HTTP/2 and gRPC
// clients use it: no request is lost, and what the proxies counted that ended
// is not lost either.
func TestDrain(t *testing.T) {
	b := open(t, meshtest.Options{YAML: app("rolling", 3, true)})
	b.do(order.Order{Op: "drive", Addr: "rolling:8080", Service: "rolling", Conns: 8, Rate: 150})
	before := len(b.replicasNow())
	restarted, err := b.mesh.Client.Restart(t.Context(), []string{"rolling"})
	if err != nil {
		t.Fatal(err)
	}
	if len(restarted) != 3 {
		t.Errorf("restarted %v, want 3 pods", restarted)
	}
	// All three have new names when they have been replaced.
	meshtest.Eventually(t, 60*time.Second, func() error {
		if n := len(b.replicas()); n < before+3 {
			return fmt.Errorf("%d replicas have a ledger, want %d", n, before+3)
		}
		return nil
	})
	b.mesh.WaitSettled()
	begin := time.Now()
	b.mesh.WaitScraped()
	t.Logf("the last of the old replicas ended %s after all new ones were ready", time.Since(begin).Round(100*time.Millisecond))
	var a order.Answer
	b.load.Call(order.Order{Op: "halt", Service: "rolling"}, &a)
	b.book("rolling", a)
	b.agree(true)
	b.report()
	// The load's own proxy ends too, and hands over its last figures.
	want := b.requests()
	b.load.Stop()
	b.diff("the store after the load's end", want, b.stored("istio_requests_total", byWhat, what))
}

func (b *books) replicasNow() map[string]bool {
	out := map[string]bool{}
	for _, p := range b.mesh.Pods() {
		if p.App == "rolling" {
			out[p.Name] = true
		}
	}
	return out
}

// TestRate sends 2,000 requests per second for a minute through two proxies.
func TestRate(t *testing.T) {
	b := open(t, meshtest.Options{YAML: app("busy", 2, true), Scrape: 5 * time.Second})
	a := b.do(order.Order{Op: "rate", Addr: "busy:8080", Service: "busy", Conns: 64, Rate: 2000, N: 120_000})
	took := time.Duration(a.Facts["milliseconds"]) * time.Millisecond
	if took > 65*time.Second {
		t.Errorf("120,000 requests took %s, want 60 s", took)
	}
	b.agree(false)
	if n := b.source.Sum(); n != 120_000 {
		t.Errorf("%d requests were sent, want 120000", n)
	}
	t.Logf("120000 requests in %s, all counted", took)
}
