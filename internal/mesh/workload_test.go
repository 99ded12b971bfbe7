package mesh_test

import (
	"net/netip"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func TestNodeID(t *testing.T) {
	for _, w := range []mesh.Workload{
		{Name: "web-7c5d", Namespace: "shop"},
		{Name: "web.v1-x", Namespace: "shop"},
		{Name: "shop.shop", Namespace: "shop"},
	} {
		w.IP = netip.MustParseAddr("127.77.0.2")
		if key, err := mesh.ParseNodeID(w.NodeID()); err != nil || key != w.Key() {
			t.Errorf("key %q (%v) of %s, want %q", key, err, w.NodeID(), w.Key())
		}
	}
	if key, err := mesh.ParseNodeID("router~10.0.0.1~gw.istio-system~istio-system.svc.mesh.example"); err != nil || key != "istio-system/gw" {
		t.Errorf("of another kind and domain: %q, %v", key, err)
	}
	for _, bad := range []string{
		"", "a~b~c", "sidecar~1~a~b", "sidecar~1~a.~b", "sidecar~1~.a~b", "sidecar~1.2.3.4~a.b~b", "sidecar~1.2.3.4~a.b~.svc.cluster.local",
		"sidecar~1.2.3.4~a.b~c.svc.cluster.local", "sidecar~1.2.3.4~.b~b.svc.cluster.local",
	} {
		if key, err := mesh.ParseNodeID(bad); err == nil {
			t.Errorf("node id %q gives key %q, want an error", bad, key)
		}
	}
}
