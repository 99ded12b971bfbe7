package truth

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/meshtest"
	"github.com/vitrine-mesh/vitrine/test/truth/internal/ledger"
	"github.com/vitrine-mesh/vitrine/test/truth/internal/order"
)

func hostAddr(t *testing.T) netip.Addr {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr()
		}
	}
	t.Fatal("this machine has no IPv4 address but loopback")
	return netip.Addr{}
}

// TestTCP wants connections and bytes of opaque TCP to be exact, also of
// connections that live on.
func TestTCP(t *testing.T) {
	users(t, func(t *testing.T, asUser bool) {
		t.Helper()
		b := open(t, meshtest.Options{YAML: app("plain", 2, true), AsUser: asUser})
		tcp := func(op string, conns, n, bytes int) {
			b.do(order.Order{Op: op, Addr: "plain:7000", Service: "plain", Conns: conns, N: n, Bytes: bytes})
		}
		tcp("tcp open", 40, 0, 0)
		tcp("tcp talk", 0, 5, 1)
		tcp("tcp talk", 0, 3, 70_001)
		tcp("tcp close", 30, 0, 0)
		b.rest(10)
		b.tcp() // ten of them still live
		tcp("tcp talk", 0, 2, 12_345)
		b.tcp()
		tcp("tcp close", 10, 0, 0)
		b.rest(0)
		b.tcp()
		t.Logf("connections and bytes, as sent and counted on both sides: %v", b.facts)
	})
}

// tcp wants the counters of TCP to be what load and servers wrote down, within
// the interval at which living connections are reported.
func (b *books) tcp() {
	b.t.Helper()
	var want counted
	meshtest.Eventually(b.t, func() error {
		want = b.wantTCP() // a server writes down what it sent after it has
		samples, err := b.mesh.ProxyMetrics()
		if err != nil {
			return err
		}
		got := counted{}
		for _, s := range samples {
			if name := s.Labels["__name__"]; strings.HasPrefix(name, "istio_tcp_") {
				got.add(name+" "+tcpWhat(s.Labels), int(s.Value))
			}
		}
		return differ("the proxies", want, got)
	})
	b.mesh.WaitScraped()
	got := counted{}
	for _, metric := range []string{"opened", "closed"} {
		b.storedTCP("istio_tcp_connections_"+metric+"_total", got)
	}
	for _, metric := range []string{"received", "sent"} {
		b.storedTCP("istio_tcp_"+metric+"_bytes_total", got)
	}
	b.diff("the store's TCP counters", want, got)
}

// wantTCP is what the counters of TCP must be by what load and servers wrote down.
func (b *books) wantTCP() counted {
	b.t.Helper()
	_, pods, err := ledger.Read(b.ledgers)
	if err != nil {
		b.t.Fatal(err)
	}
	want := counted{}
	for metric, facts := range map[string][2]string{
		"istio_tcp_connections_opened_total": {"opened", "tcp_opened"},
		"istio_tcp_connections_closed_total": {"closed", "tcp_closed"},
		"istio_tcp_received_bytes_total":     {"sent", "tcp_received"},
		"istio_tcp_sent_bytes_total":         {"received", "tcp_sent"},
	} {
		want.add(metric+" source load plain tcp -", b.facts["plain "+facts[0]])
		for _, f := range pods {
			want.add(metric+" destination load plain tcp -", f[facts[1]])
		}
	}
	return want
}

func (b *books) storedTCP(metric string, into counted) {
	b.t.Helper()
	by := "reporter, source_workload, destination_service_name, request_protocol, response_flags"
	for k, n := range b.stored(metric, by, tcpWhat) {
		into.add(metric+" "+k, n)
	}
}

func tcpWhat(l map[string]string) string {
	return strings.Join([]string{
		l["reporter"], strings.TrimSuffix(l["source_workload"], "-v1"), l["destination_service_name"], l["request_protocol"], l["response_flags"],
	}, " ")
}
