package ads_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/xds"
)

// TestRefusedUntilSentAgain: what a proxy refused stays in its status while it
// accepts other things, until the refused resources are sent again or taken away.
func TestRefusedUntilSentAgain(t *testing.T) {
	p, socket := servePlane(t, world(2), 0)
	d := newDeltaStream(t, socket, "envoy")
	// answer accepts the next response, or refuses it with a text, and waits for
	// what the status says then.
	answer := func(refusal, lastError string) {
		t.Helper()
		m := d.receive()
		r := &discoverypb.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()}
		if refusal != "" {
			r.ErrorDetail = &statuspb.Status{Code: 13, Message: refusal}
		}
		acked := typeOf(p, xds.CDS).Acked
		d.ask(r)
		eventually(t, "the answer shows", func() bool {
			ts := typeOf(p, xds.CDS)
			return ts.LastError == lastError && (refusal != "" || ts.Acked != acked) && ts.InSync() == (lastError == "")
		})
	}
	d.ask(&discoverypb.DeltaDiscoveryRequest{TypeUrl: xds.CDS.TypeURL()})
	answer("", "")

	cfg := world(4)
	p.set(cfg)
	bad := "cluster outbound|80||svc-0003.default.svc.cluster.local: no"
	answer(bad, bad) // svc-0002 is good
	p.set(world(5))
	answer("", bad) // svc-0004 has nothing to do with it
	cfg = world(5)
	cfg.Clusters[3].ConnectTimeout++
	p.set(cfg)
	answer("", bad) // nor has svc-0002
	cfg = world(5)
	cfg.Clusters[4].ConnectTimeout++
	p.set(cfg)
	answer("", "") // svc-0003 in a newer version

	p.set(world(6))
	answer("no reason", "no reason") // names nothing: all of it
	cfg = world(6)
	cfg.Clusters[1].ConnectTimeout++
	p.set(cfg)
	answer("", "no reason")
	p.set(slimmer(cfg, 3))
	answer("", "") // all that was refused is taken away
	if n := strings.Count(metricsOf(t, p), `pilot_total_xds_rejects{type="cds"} 2`); n != 1 {
		t.Error("two refusals are not counted as such")
	}
	// Eight configurations were pushed after the first, of which two were refused.
	if text := metricsOf(t, p); !strings.Contains(text, "pilot_proxy_convergence_time_count 6\n") {
		t.Errorf("what was refused counts as converged:\n%s", text)
	}
}

// TestRefusalNamesWholeNames: a name within another one is not named.
func TestRefusalNamesWholeNames(t *testing.T) {
	routes := func(seconds int) *mesh.NodeConfig {
		cfg := world(1)
		var out []mesh.RouteConfig
		for _, name := range []string{"80", "8080", "18080"} {
			rc := cfg.Routes[0]
			rc.Name, rc.VirtualHosts = name, slices.Clone(rc.VirtualHosts)
			route := rc.VirtualHosts[0].Routes[0]
			route.Timeout = time.Duration(seconds) * time.Second
			rc.VirtualHosts[0].Routes = []mesh.Route{route}
			out = append(out, rc)
		}
		slices.SortFunc(out, func(a, b mesh.RouteConfig) int { return strings.Compare(a.Name, b.Name) })
		cfg.Routes = out
		return cfg
	}
	p, socket := servePlane(t, routes(1), 0)
	d := newDeltaStream(t, socket, "envoy")
	d.ask(&discoverypb.DeltaDiscoveryRequest{TypeUrl: xds.RDS.TypeURL()})
	d.expect("rds +18080 +80 +8080")
	d.ack()
	p.set(routes(2))
	d.expect("rds +18080 +80 +8080")
	const refusal = `Error adding/updating route(s) 8080: virtual host "svc:80" has none, see 0.0.0.0_80.`
	d.ask(&discoverypb.DeltaDiscoveryRequest{
		TypeUrl: xds.RDS.TypeURL(), ResponseNonce: d.last.GetNonce(), ErrorDetail: &statuspb.Status{Code: 13, Message: refusal},
	})
	eventually(t, "the refusal shows", func() bool { return typeOf(p, xds.RDS).LastError == refusal })
	mended := routes(2)
	mended.Routes[2].VirtualHosts[0].Routes[0].Timeout++ // of 8080
	p.set(mended)
	d.expect("rds +8080")
	d.ack()
	eventually(t, "all is accepted", func() bool { ts := typeOf(p, xds.RDS); return ts.InSync() })
}

// slimmer is cfg with the last services gone, down to n.
func slimmer(cfg *mesh.NodeConfig, n int) *mesh.NodeConfig {
	out := *cfg
	out.Clusters, out.Endpoints = slices.Clone(cfg.Clusters[:n+1]), slices.Clone(cfg.Endpoints[:n])
	return &out
}

// TestConfigurationThatCannotBeTold: one invalid object stops every proxy. That
// is said once, shows in the status of each, and none counts as up to date.
func TestConfigurationThatCannotBeTold(t *testing.T) {
	p, socket := servePlane(t, world(2), 0)
	a, b := startClient(t, socket, "a", ""), startClient(t, socket, "b", "")
	a.wants(t, world(2))
	b.wants(t, world(2))
	bad := world(3)
	bad.Routes[0].VirtualHosts[2].Domains = bad.Routes[0].VirtualHosts[1].Domains
	p.set(bad)
	const fault = "encode rds \"80\": virtual host \"svc-0002.default.svc.cluster.local:80\": " +
		"domain \"svc-0001.default.svc.cluster.local\" is empty or occurs twice"
	eventually(t, "the fault shows", func() bool {
		st := p.Status()
		return len(st) == 2 && st[0].Fault == fault && st[1].Fault == fault
	})
	p.Notify()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Converged(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "wait for proxies a, b") {
		t.Errorf("converged: %v, want to wait for a and b", err)
	}
	eventually(t, "nothing more is to come", func() bool { return len(p.Waiting()) == 0 })
	if n := p.log.count("level=ERROR"); n != 1 {
		t.Errorf("the fault is said %d times, want once", n)
	}
	p.set(world(3))
	a.wants(t, world(3))
	b.wants(t, world(3))
	ctx, cancel = context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Converged(ctx); err != nil {
		t.Error(err)
	}
	for _, st := range p.Status() {
		if st.Fault != "" {
			t.Errorf("%s: fault %q after a good configuration", st.Node, st.Fault)
		}
	}
}
