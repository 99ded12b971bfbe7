package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/vitrine-mesh/vitrine/internal/intercept"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// until is a part that runs until it is told to end, and notes its end.
func until(name string, mu *sync.Mutex, ended *[]string) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		mu.Lock()
		defer mu.Unlock()
		*ended = append(*ended, name)
		return ctx.Err()
	}
}

func TestPartsEndInReverse(t *testing.T) {
	var mu sync.Mutex
	var ended []string
	g := newGroup(slog.New(slog.DiscardHandler))
	for _, name := range []string{"a", "b", "c", "d"} {
		g.start(t.Context(), name, until(name, &mu, &ended))
	}
	g.stopFrom("c")
	if want := []string{"d", "c"}; !slices.Equal(ended, want) {
		t.Errorf("ended %v, want %v", ended, want)
	}
	if err := g.stop(); err != nil {
		t.Error(err)
	}
	if want := []string{"d", "c", "b", "a"}; !slices.Equal(ended, want) {
		t.Errorf("ended %v, want %v", ended, want)
	}
}

// TestRootCauseIsTold: of several parts that failed the one that the others rely on,
// whichever ended first, and whether or not all were told to end meanwhile.
func TestRootCauseIsTold(t *testing.T) {
	var mu sync.Mutex
	var ended []string
	cause := errors.New("disk on fire")
	g := newGroup(slog.New(slog.DiscardHandler))
	g.start(t.Context(), "a", until("a", &mu, &ended))
	late := make(chan struct{})
	g.start(t.Context(), "b", func(context.Context) error { <-late; return cause })
	g.start(t.Context(), "c", func(context.Context) error { return nil })
	g.start(t.Context(), "d", func(ctx context.Context) error { <-ctx.Done(); close(late); return errors.New("cut off") })
	<-g.failed
	if err := g.stop(); !errors.Is(err, cause) || err.Error() != "b: disk on fire" {
		t.Errorf("the cause is %q, want that of b", err)
	}
}

// TestNames: what exists is what has records, and what such a name ends with.
func TestNames(t *testing.T) {
	var n names
	if _, known := n.Lookup("web.default.svc.cluster.local"); known {
		t.Error("a name is known before there is a configuration")
	}
	pod, vip := []netip.Addr{mesh.CaseIP4(5)}, []netip.Addr{mesh.ServiceVIP4(1)}
	const db, db0 = "db.default.svc.cluster.local", "db-0.db.default.svc.cluster.local"
	n.set([]mesh.Name{
		{Host: db0, Addresses: pod, Namespace: "default"},
		{Host: "db-0.peers.default.svc.cluster.local", Addresses: pod, Namespace: "default"},
		{Host: db, Addresses: pod, Namespace: "default", Short: "db", SRV: []mesh.SRV{{Service: "_sql._tcp", Target: db0, Port: 5432}}},
		{Host: "empty.prod.svc.cluster.local", Namespace: "default", Short: "empty"},
		{Host: "web.default.svc.cluster.local", Addresses: vip, Namespace: "default", Short: "web", SRV: []mesh.SRV{
			{Service: "_http._tcp", Target: "web.default.svc.cluster.local", Port: 80},
		}},
	})
	for name, want := range map[string]intercept.Records{
		"web.default.svc.cluster.local": {Addresses: vip},
		"_http._tcp.web.default.svc.cluster.local": {Services: []intercept.ServiceRecord{
			{Target: "web.default.svc.cluster.local", Port: 80, Addresses: vip},
		}},
		db: {Addresses: pod}, db0: {Addresses: pod},
		"_sql._tcp." + db: {Services: []intercept.ServiceRecord{{Target: db0, Port: 5432, Addresses: pod}}},
		"_tcp." + db:      {}, "default.svc.cluster.local": {}, "svc.cluster.local": {}, "cluster.local": {},
	} {
		if got, known := n.Lookup(name); !known || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %v, known %v, want %v", name, got, known, want)
		}
	}
	for _, name := range []string{"empty.prod.svc.cluster.local", "prod.svc.cluster.local", "_udp." + db, "local", ""} {
		if got, known := n.Lookup(name); known {
			t.Errorf("%s is %v", name, got)
		}
	}
	if got := n.ReverseLookup(pod[0]); !slices.Equal(got, []string{db0, "db-0.peers.default.svc.cluster.local"}) {
		t.Errorf("%s is %q", pod[0], got)
	}
	if got := n.ReverseLookup(vip[0]); !slices.Equal(got, []string{"web.default.svc.cluster.local"}) {
		t.Errorf("%s is %q", vip[0], got)
	}
	if got := n.ReverseLookup(mesh.CaseIP4(6)); got != nil {
		t.Errorf("an address of nobody has the names %q", got)
	}
}

// TestLists: a proxy tells from its configuration whether others may still call
// its workload.
func TestLists(t *testing.T) {
	cfg := &mesh.NodeConfig{Endpoints: []mesh.ClusterEndpoints{
		{Cluster: "empty"},
		{Cluster: "web", Endpoints: []mesh.Endpoint{{Workload: "default/web-0"}, {Workload: "default/web-1"}}},
	}}
	for workload, want := range map[string]bool{"default/web-0": true, "default/web-1": true, "default/web": false, "": false} {
		if got := lists(cfg, workload); got != want {
			t.Errorf("%q: %t, want %t", workload, got, want)
		}
	}
}
