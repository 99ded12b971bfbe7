package sidecar

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

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
	g := newGroup()
	for _, name := range []string{"a", "b", "c", "d"} {
		g.start(t.Context(), name, until(name, &mu, &ended))
	}
	if err := g.stopFrom("c"); err != nil {
		t.Error(err)
	}
	if want := []string{"d", "c"}; !slices.Equal(ended, want) {
		t.Errorf("ended %v, want %v", ended, want)
	}
	if err := g.stopFrom(""); err != nil {
		t.Error(err)
	}
	if want := []string{"d", "c", "b", "a"}; !slices.Equal(ended, want) {
		t.Errorf("ended %v, want %v", ended, want)
	}
}

func TestFirstFailureIsTold(t *testing.T) {
	var mu sync.Mutex
	var ended []string
	cause := errors.New("disk on fire")
	g := newGroup()
	g.start(t.Context(), "a", until("a", &mu, &ended))
	g.start(t.Context(), "b", func(context.Context) error { return cause })
	<-g.failed
	if !errors.Is(g.first, cause) || g.first.Error() != "b: disk on fire" {
		t.Errorf("first failure is %v", g.first)
	}
	if err := g.stopFrom(""); !errors.Is(err, cause) {
		t.Errorf("stop says %v", err)
	}
}

func TestNames(t *testing.T) {
	var n names
	if _, known := n.Lookup("web.default.svc.cluster.local"); known {
		t.Error("a name is known before there is a configuration")
	}
	pod, vip := mesh.CaseIP4(5), mesh.ServiceVIP4(1)
	n.set([]mesh.Name{
		{Host: "db-0.db.default.svc.cluster.local", Addresses: []netip.Addr{pod}, Namespace: "default"},
		{Host: "db.default.svc.cluster.local", Addresses: []netip.Addr{pod}, Namespace: "default", Short: "db"},
		{Host: "empty.default.svc.cluster.local", Namespace: "default", Short: "empty"},
		{Host: "web.default.svc.cluster.local", Addresses: []netip.Addr{vip}, Namespace: "default", Short: "web"},
	})
	if addrs, known := n.Lookup("web.default.svc.cluster.local"); !known || !slices.Equal(addrs, []netip.Addr{vip}) {
		t.Errorf("web is %v, known %v", addrs, known)
	}
	if addrs, known := n.Lookup("empty.default.svc.cluster.local"); !known || len(addrs) != 0 {
		t.Errorf("empty is %v, known %v", addrs, known)
	}
	if name, known := n.ReverseLookup(pod); !known || name != "db-0.db.default.svc.cluster.local" {
		t.Errorf("%s is %q, known %v", pod, name, known)
	}
	if _, known := n.ReverseLookup(mesh.CaseIP4(6)); known {
		t.Error("an address of nobody has a name")
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
