package route

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func to(cluster string) []mesh.WeightedCluster {
	return []mesh.WeightedCluster{{Cluster: cluster}}
}

func vhost(name string, routes ...mesh.Route) func(domains ...string) mesh.VirtualHost {
	if len(routes) == 0 {
		routes = []mesh.Route{{Name: name, Prefix: "/", Clusters: to(name)}}
	}
	return func(domains ...string) mesh.VirtualHost {
		return mesh.VirtualHost{Name: name, Domains: domains, Routes: routes}
	}
}

func sampleConfigs() []mesh.RouteConfig {
	return []mesh.RouteConfig{
		{Name: "80", VirtualHosts: []mesh.VirtualHost{
			vhost("web-app")("web-app.default.svc.cluster.local", "web-app.default.svc.cluster.local:80", "web-app", "Web-App:80", "240.240.0.1", "[2001:2::1]", "2001:2::1"),
			vhost("paths",
				mesh.Route{Name: "api", Prefix: "/api/", Timeout: 2 * time.Second, Clusters: to("api")},
				mesh.Route{Name: "admin", Prefix: "/admin", Clusters: to("admin")},
			)("paths.example.com"),
			vhost("port-only")("only.example.com:8080"),
			vhost("suffix")("*.example.com"),
			vhost("long-suffix")("*.eu.example.com"),
			vhost("allow_any")("*"),
		}},
		{Name: "closed", VirtualHosts: []mesh.VirtualHost{vhost("one")("one")}},
	}
}

func TestMatch(t *testing.T) {
	table, err := Compile(sampleConfigs())
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ config, authority, path, want string }{
		{"80", "web-app", "/", "web-app"},
		{"80", "WEB-app", "/x?y", "web-app"},
		{"80", "web-app:80", "/", "web-app"},
		{"80", "web-app:8080", "/", "web-app"},
		{"80", "web-app.", "/", "web-app"},
		{"80", "web-app.:80", "/", "web-app"},
		{"80", "web-app.default.svc.cluster.local.", "/", "web-app"},
		{"80", "240.240.0.1:80", "/", "web-app"},
		{"80", "[2001:2::1]", "/", "web-app"},
		{"80", "[2001:2::1]:80", "/", "web-app"},
		{"80", "2001:2::1", "/", "web-app"},
		{"80", "web-app", "*", "web-app"},
		{"80", "web-app:80", "", "web-app"},
		{"80", "web-app2", "/", "allow_any"},
		{"80", "web-app:x", "/", "allow_any"},
		{"80", "", "/", "allow_any"},
		{"80", strings.Repeat("a", maxDomain+1), "/", "allow_any"},
		{"80", strings.Repeat("a.", maxDomain) + "example.com", "/", "allow_any"},
		{"80", "a.example.com", "/", "suffix"},
		{"80", "b.a.example.com:443", "/", "suffix"},
		{"80", "a.EU.example.com.", "/", "long-suffix"},
		{"80", "eu.example.com", "/", "suffix"},
		{"80", "example.com", "/", "allow_any"},
		{"80", ".example.com", "/", "allow_any"},
		{"80", "only.example.com:8080", "/", "port-only"},
		{"80", "only.example.com", "/", "suffix"},
		{"80", "paths.example.com", "/api/v1", "api"},
		{"80", "paths.example.com", "/admin", "admin"},
		{"80", "paths.example.com", "/administrator", "admin"},
		{"80", "paths.example.com", "/api", ""},
		{"80", "paths.example.com", "/", ""},
		{"closed", "one", "/", "one"},
		{"closed", "two", "/", ""},
	} {
		got := ""
		if r := table.Config(tc.config).Match([]byte(tc.authority), []byte(tc.path)); r != nil {
			got = r.Name
		}
		if got != tc.want {
			t.Errorf("%s: Match(%.60q, %q) = %q, want %q", tc.config, tc.authority, tc.path, got, tc.want)
		}
	}
	if table.Config("none") != nil {
		t.Error(`Config("none") is not nil`)
	}
	api := table.Config("80").Match([]byte("paths.example.com"), []byte("/api/"))
	want := Route{Name: "api", Timeout: 2 * time.Second, Clusters: to("api")}
	if diff := cmp.Diff(want, *api, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".prefix" || p.Last().String() == ".total" }, cmp.Ignore()), cmp.AllowUnexported(Route{})); diff != "" {
		t.Errorf("route (-want +got):\n%s", diff)
	}
}

func TestCompileNamesEveryFault(t *testing.T) {
	_, err := Compile([]mesh.RouteConfig{
		{Name: "80", VirtualHosts: []mesh.VirtualHost{
			{Name: "empty"},
			vhost("a")("same", "*"),
			vhost("b")("SAME.", "*", "a.*", "*x.example.com", "", "*."),
			vhost("c", mesh.Route{Name: "r0", Prefix: "/"},
				mesh.Route{Name: "r1", Prefix: "x", Clusters: to("c")},
				mesh.Route{Name: "r2", Prefix: "/", Timeout: -1, Clusters: to("c")},
				mesh.Route{Name: "r3", Prefix: "/", Clusters: to("")},
				mesh.Route{Name: "r4", Prefix: "/", Clusters: append(to("c"), to("d")...)})("c"),
		}},
		{Name: "81", VirtualHosts: []mesh.VirtualHost{vhost("x")(strings.Repeat("x", maxDomain+1))}},
		{Name: "80"},
	})
	if err == nil {
		t.Fatal("compiled")
	}
	want := []string{
		`route configuration "80": virtual host "empty" has no domains: name at least one, or *`,
		`virtual host "b": domain "SAME." belongs to virtual host "a" already`,
		`virtual host "b": domain * belongs to virtual host "a" already`,
		`virtual host "b": domain "a.*": a wildcard may only be the first label`,
		`virtual host "b": domain "*x.example.com": a wildcard stands for whole labels, as in *.example.com`,
		`virtual host "b": domain "" is empty`,
		`virtual host "b": domain "*.": a wildcard stands for whole labels, as in *.example.com`,
		`virtual host "c": route 0 "r0": no cluster to send requests to`,
		`virtual host "c": route 1 "r1": path prefix "x" does not start with /`,
		`virtual host "c": route 2 "r2": timeout -1ns is negative`,
		`virtual host "c": route 3 "r3": a cluster without a name`,
		`virtual host "c": route 4 "r4": all weights are 0`,
		`route configuration "81": virtual host "x": domain "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"… is longer than 260 bytes`,
		`route configuration "80" appears twice`,
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

func TestPickFollowsWeights(t *testing.T) {
	r, err := newRoute(&mesh.Route{Prefix: "/", Clusters: []mesh.WeightedCluster{{Cluster: "a", Weight: 90}, {Cluster: "never", Weight: 0}, {Cluster: "b", Weight: 10}}})
	if err != nil {
		t.Fatal(err)
	}
	const steps = 1000
	var got [3]int
	for i := range uint64(steps) {
		got[r.Pick(uint32(i*math.MaxUint32/steps))]++
	}
	if got[0] < 899 || got[0] > 901 || got[1] != 0 || got[0]+got[2] != steps {
		t.Errorf("hits %v, want 900, 0, 100", got)
	}
	if first, last := r.Pick(0), r.Pick(math.MaxUint32); first != 0 || last != 2 {
		t.Errorf("ends picked %d and %d, want 0 and 2", first, last)
	}
	heavy, err := newRoute(&mesh.Route{Prefix: "/", Clusters: []mesh.WeightedCluster{{Cluster: "a", Weight: math.MaxUint32}, {Cluster: "b", Weight: math.MaxUint32}}})
	if err != nil {
		t.Fatal(err)
	}
	if a, b := heavy.Pick(math.MaxUint32/2), heavy.Pick(math.MaxUint32/2+1); a != 0 || b != 1 {
		t.Errorf("halves picked %d and %d, want 0 and 1", a, b)
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	table, err := Compile(sampleConfigs())
	if err != nil {
		t.Fatal(err)
	}
	c := table.Config("80")
	web, suffix, other, path := []byte("Web-App.Default.svc.cluster.local:80"), []byte("x.eu.example.com"), []byte("10.0.0.1:80"), []byte("/api/v1")
	if n := testing.AllocsPerRun(100, func() {
		c.Match(web, path).Pick(7)
		c.Match(suffix, path)
		c.Match(other, path)
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// FuzzMatch: any authority finds the virtual host of "*" at least, and spelling
// it in upper case or with a final dot changes nothing.
func FuzzMatch(f *testing.F) {
	table, err := Compile(sampleConfigs())
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"web-app", "a.eu.example.com:80", "[::1]:80", "::", ":", "..", "[", "]:1", "a:b:1"} {
		f.Add(s)
	}
	c := table.Config("80")
	f.Fuzz(func(t *testing.T, authority string) {
		vh := c.find([]byte(authority))
		if vh == nil {
			t.Fatal("no virtual host")
		}
		upper := []byte(authority)
		for i, b := range upper {
			if b >= 'a' && b <= 'z' {
				upper[i] = b - 32
			}
		}
		if got := c.find(upper); got != vh {
			t.Errorf("find(%q) = %s, find(%q) = %s", authority, vh.name, upper, got.name)
		}
	})
}

// TestMemo: what is remembered of one authority and configuration is not used for others.
func TestMemo(t *testing.T) {
	table, err := Compile(sampleConfigs())
	if err != nil {
		t.Fatal(err)
	}
	var m Memo
	path := []byte("/")
	authorities := []string{"web-app", "WEB-APP:80", "web-app", "unknown.example", strings.Repeat("x", maxDomain+1), "web-app.default.svc.cluster.local", ""}
	var named []byte // one memory for all, as in a buffer of requests
	for range 2 {
		for name, c := range table.configs {
			for _, authority := range append(authorities, authorities...) {
				named = append(named[:0], authority...)
				if got, want := m.Match(c, named, path), c.Match(named, path); got != want {
					t.Errorf("%s %q: Match = %v, want %v", name, authority, got, want)
				}
			}
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	table, err := Compile(sampleConfigs())
	if err != nil {
		b.Fatal(err)
	}
	c := table.Config("80")
	web, path := []byte("web-app.default.svc.cluster.local:80"), []byte("/")
	for b.Loop() {
		c.Match(web, path)
	}
}
