package control

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// TestPublishNotReady: members of a service that publishes those that are not
// ready find each other by name and address before any of them is.
func TestPublishNotReady(t *testing.T) {
	peers := service("shop", "etcd", mesh.ServicePort{Name: "tcp-peer", Port: 2380, Protocol: mesh.ProtocolTCP})
	peers.Headless, peers.PublishNotReady = true, true
	clients := service("shop", "clients", mesh.ServicePort{Name: "tcp", Port: 2379, TargetPort: 2380, Protocol: mesh.ProtocolTCP})
	clients.Selector = peers.Selector
	p := newPlane(t, "")
	var members []mesh.Workload
	for i := range 2 {
		w := workload("shop", "etcd", strconv.Itoa(i), false, mesh.WorkloadPort{Port: 2380})
		w.OwnerKind = mesh.KindStatefulSet
		members = append(members, w)
	}
	fill(p, []mesh.Service{peers, clients}, members)
	s := snapshot(p)
	cfg, err := View(s, "shop/etcd-0")
	if err != nil {
		t.Fatal(err)
	}
	a, b := &s.Workloads[0], &s.Workloads[1]
	wantEndpoints := []mesh.ClusterEndpoints{
		{Cluster: "outbound|2379||clients.shop.svc.cluster.local"},
		{Cluster: "outbound|2380||etcd.shop.svc.cluster.local", Endpoints: []mesh.Endpoint{
			{Address: netip.AddrPortFrom(a.IP, 15100), Workload: "shop/etcd-0"},
			{Address: netip.AddrPortFrom(b.IP, 15100), Workload: "shop/etcd-1"},
		}},
	}
	if diff := cmp.Diff(wantEndpoints, cfg.Endpoints, byValue); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
	wantNames := []mesh.Name{
		{Host: "clients.shop.svc.cluster.local", Namespace: "shop", Short: "clients", Addresses: []netip.Addr{s.Services[0].VIP4, s.Services[0].VIP6}, SRV: []mesh.SRV{
			{Service: "_tcp._tcp", Target: "clients.shop.svc.cluster.local", Port: 2379},
		}},
		{Host: "etcd-0.etcd.shop.svc.cluster.local", Namespace: "shop", Addresses: []netip.Addr{a.CaseIP, a.CaseIP6}},
		{Host: "etcd-1.etcd.shop.svc.cluster.local", Namespace: "shop", Addresses: []netip.Addr{b.CaseIP, b.CaseIP6}},
		{Host: "etcd.shop.svc.cluster.local", Namespace: "shop", Short: "etcd", Addresses: []netip.Addr{a.CaseIP, a.CaseIP6, b.CaseIP, b.CaseIP6}, SRV: []mesh.SRV{
			{Service: "_tcp-peer._tcp", Target: "etcd-0.etcd.shop.svc.cluster.local", Port: 2380},
			{Service: "_tcp-peer._tcp", Target: "etcd-1.etcd.shop.svc.cluster.local", Port: 2380},
		}},
	}
	if diff := cmp.Diff(wantNames, cfg.Names, byValue); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

// TestOrderOfArrivalDoesNotMatter permutes sources, services and workloads.
func TestOrderOfArrivalDoesNotMatter(t *testing.T) {
	services, workloads := shop()
	var want *mesh.NodeConfig
	for seed := range uint64(50) {
		p := newPlane(t, "")
		for i, w := range workloads { // addresses depend on arrival, so they are fixed
			workloads[i].IP = mesh.IP(77, mesh.Index(10+i))
			_ = w
		}
		for _, svc := range services {
			p.vips.take(svc.Host)
		}
		r := rand.New(rand.NewPCG(seed, 7))
		for _, i := range r.Perm(len(workloads)) {
			p.SetWorkload(workloads[i])
		}
		for _, i := range r.Perm(len(services)) {
			p.SetServices("source "+services[i].Host, services[i:i+1])
		}
		got, err := View(snapshot(p), "shop/cart-1")
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = got
		}
		if !reflect.DeepEqual(want, got) {
			t.Fatalf("seed %d gives another configuration:\n%s", seed, cmp.Diff(want, got, byValue))
		}
		shared, err := p.View("shop/cart-1")
		if err != nil || !reflect.DeepEqual(want, shared) {
			t.Fatalf("Plane.View differs from View (%v):\n%s", err, cmp.Diff(want, shared, byValue))
		}
	}
}

// TestUnconcernedProxyKeepsItsListeners changes what does not concern a proxy.
func TestUnconcernedProxyKeepsItsListeners(t *testing.T) {
	p := newPlane(t, "")
	services, workloads := shop()
	fill(p, services, workloads)
	before, err := View(snapshot(p), "shop/cart-1")
	if err != nil {
		t.Fatal(err)
	}
	again := workload("shop", "web", "1", true, mesh.WorkloadPort{Name: "http", Port: 8080})
	version := p.Snapshot().Version
	p.SetWorkload(again) // the same as before
	p.SetServices("files", services)
	if got := snapshot(p).Version; got != version {
		t.Errorf("setting the same again publishes version %d after %d", got, version)
	}
	p.SetWorkload(workload("shop", "web", "2", true, mesh.WorkloadPort{Name: "http", Port: 8080}))
	after, err := View(snapshot(p), "shop/cart-1")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(before.Listeners, after.Listeners) || !reflect.DeepEqual(before.Routes, after.Routes) ||
		!reflect.DeepEqual(before.Clusters, after.Clusters) || !reflect.DeepEqual(before.Names, after.Names) {
		t.Error("a workload that became ready changes more than endpoints and workloads of another proxy")
	}
	changed := 0
	for i := range before.Endpoints {
		if !reflect.DeepEqual(before.Endpoints[i], after.Endpoints[i]) {
			changed++
		}
	}
	if changed != 1 {
		t.Errorf("%d endpoint sets changed, want 1", changed)
	}
}

func TestDebounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlane(t, "")
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() {
			if err := p.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		defer func() { cancel(); done.Wait() }()
		at := func(d time.Duration, want uint64) {
			t.Helper()
			<-time.NewTimer(d).C
			synctest.Wait()
			if got := p.Snapshot().Version; got != want {
				t.Fatalf("version %d, want %d", got, want)
			}
		}
		at(time.Minute, 0) // nothing happens without a change
		p.SetWorkload(workload("a", "x", "1", true))
		at(9*time.Millisecond, 0)
		at(2*time.Millisecond, 1) // quiet for 10 ms
		for i := range 199 {      // never quiet: a change every 5 ms
			p.SetWorkload(workload("a", "x", "1", i%2 != 0))
			<-time.NewTimer(5 * time.Millisecond).C
		}
		synctest.Wait()
		if got := p.Snapshot().Version; got != 1 {
			t.Fatalf("version %d before the maximum wait, want 1", got)
		}
		p.SetWorkload(workload("a", "x", "2", true))
		at(5*time.Millisecond, 1)
		p.SetWorkload(workload("a", "x", "3", true))
		at(5*time.Millisecond, 2) // the maximum wait is over
	})
}

// TestPublished: a snapshot is whole when everything that the plane was told is in
// it, and nothing else makes it less so.
func TestPublished(t *testing.T) {
	p := newPlane(t, "")
	wants := func(what string, version uint64, whole bool) {
		t.Helper()
		if s, got := p.Published(); s.Version != version || got != whole {
			t.Errorf("%s: version %d, whole %t, want %d, %t", what, s.Version, got, version, whole)
		}
	}
	wants("nothing told", 0, true)
	w := workload("a", "x", "0", false)
	p.SetWorkload(w)
	wants("told", 0, false)
	p.publish()
	wants("published", 1, true)
	p.SetWorkload(w)
	wants("told the same", 1, true)
	w.Ready = true
	p.SetWorkload(w)
	wants("ready", 1, false)
	p.SetServices("files", []mesh.Service{service("a", "x")})
	p.publish()
	wants("both published", 2, true)
}

func TestWatchSkipsToTheLast(t *testing.T) {
	p := newPlane(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p.SetWorkload(workload("a", "x", "0", true))
	p.publish()
	var got []uint64
	for s := range p.Watch(ctx) {
		got = append(got, s.Version)
		switch s.Version {
		case 1:
			for i := range 5 {
				p.SetWorkload(workload("a", "x", strconv.Itoa(i+1), true))
				p.publish()
			}
		case 6:
			cancel()
		}
	}
	if diff := cmp.Diff([]uint64{1, 6}, got); diff != "" {
		t.Errorf("versions seen (-want +got):\n%s", diff)
	}
}
