package daemon

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vitrine-mesh/vitrine/internal/manifest"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func TestProgramOf(t *testing.T) {
	host := netip.MustParseAddrPort("127.0.0.1:3000")
	set, service, err := programOf(&RunRequest{
		Service: "api", Version: "v1.2", Ports: []RunPort{{Port: 8080, Protocol: "http"}}, Args: []string{"./api"}, Dir: "/srv",
		Publish: []mesh.Publish{{Host: host, Port: 8080}}, Labels: map[string]string{"team": "a", "example.com/tier": "Front_1.2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if set.Name != "api-v1-2" || set.Kind != mesh.KindProgram || set.Restart != mesh.RestartNever {
		t.Errorf("set %s, kind %s, restart %s", set.Name, set.Kind, set.Restart)
	}
	if diff := cmp.Diff(map[string]string{"app": "api", "version": "v1.2", "team": "a", "example.com/tier": "Front_1.2"}, set.Labels); diff != "" {
		t.Errorf("labels (-want +got)\n%s", diff)
	}
	want := mesh.Service{
		ServiceRef: mesh.ServiceRef{Host: "api.default.svc.cluster.local", Name: "api", Namespace: "default"},
		Selector:   map[string]string{"app": "api"},
		Ports:      []mesh.ServicePort{{Name: "http-8080", Port: 8080, TargetPort: 8080, Protocol: mesh.ProtocolHTTP, Publish: []netip.AddrPort{host}}},
	}
	if diff := cmp.Diff(want, service, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})); diff != "" {
		t.Errorf("service (-want +got)\n%s", diff)
	}
}

func TestProgramOfRefuses(t *testing.T) {
	host := netip.MustParseAddrPort("127.0.0.1:3000")
	for name, r := range map[string]RunRequest{
		"no command":    {Service: "api"},
		"no service":    {Args: []string{"x"}},
		"upper case":    {Service: "API", Args: []string{"x"}},
		"dash at end":   {Service: "api-", Args: []string{"x"}},
		"bad namespace": {Service: "api", Namespace: "a/b", Args: []string{"x"}},
		"bad version":   {Service: "api", Version: "v1/..", Args: []string{"x"}},
		"two protocols": {Service: "api", Args: []string{"x"}, Ports: []RunPort{{80, "http"}, {80, "tcp"}}},
		"two ports":     {Service: "api", Args: []string{"x"}, Publish: []mesh.Publish{{Host: host, Port: 1}, {Host: host, Port: 2}}},
		"another app":   {Service: "api", Args: []string{"x"}, Labels: map[string]string{"app": "web"}},
		"version twice": {Service: "api", Args: []string{"x"}, Labels: map[string]string{"version": "v1"}},
		"bad label":     {Service: "api", Args: []string{"x"}, Labels: map[string]string{"team": "a b"}},
		"bad key":       {Service: "api", Args: []string{"x"}, Labels: map[string]string{"a/b/c": "d"}},
	} {
		if _, _, err := programOf(&r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Two programs that are added at the same moment cannot get one published
// address, unless they are of one service.
func TestPublishedAddressesAreReserved(t *testing.T) {
	host := netip.MustParseAddrPort("127.0.0.1:3000")
	of := func(name string) *mesh.Service {
		_, s, err := programOf(&RunRequest{Service: name, Args: []string{"x"}, Publish: []mesh.Publish{{Host: host, Port: 80}}})
		if err != nil {
			t.Fatal(err)
		}
		return &s
	}
	m := &Mesh{objs: &manifest.Objects{}, runs: map[string]mesh.Service{}}
	mine, done, err := m.reserve(of("api"))
	if err != nil || len(mine) != 0 {
		t.Fatalf("the first: %v, %v", mine, err)
	}
	_, _, err = m.reserve(of("web"))
	if want := "service web.default wants 127.0.0.1:3000, which is in use by service api.default: choose another port, or end that one first"; err == nil || err.Error() != want {
		t.Errorf("another service: %v, want %s", err, want)
	}
	mine, twice, err := m.reserve(of("api"))
	if err != nil || !mine[host] {
		t.Errorf("the same service: %v, %v", mine, err)
	}
	twice()
	m.runs["default/api-1"] = *of("api")
	done()
	if _, _, err = m.reserve(of("web")); err == nil {
		t.Error("the address of a program that runs was given away")
	}
	delete(m.runs, "default/api-1")
	if _, _, err = m.reserve(of("web")); err != nil {
		t.Error(err)
	}
}

// TestLabelsThatBecomeOne: of labels whose names become the same, a target always has
// the same one's value: another would make another target of it.
func TestLabelsThatBecomeOne(t *testing.T) {
	for range 100 {
		w := mesh.Workload{Labels: map[string]string{"example.com/tier": "slash", "example.com-tier": "dash", "example.com.tier": "dot"}}
		if got := proxyTarget(&w).Labels["example_com_tier"]; got != "slash" {
			t.Fatal(got)
		}
	}
}

func TestLabelName(t *testing.T) {
	if got := labelName("service.istio.io/canonical-name"); got != "service_istio_io_canonical_name" {
		t.Error(got)
	}
}
