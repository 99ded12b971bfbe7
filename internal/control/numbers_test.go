package control

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func TestAddressesSurviveRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	p := newPlane(t, path)
	services, workloads := shop()
	fill(p, services, workloads)
	want := snapshot(p)
	index, err := p.Index("shop/later")
	if err != nil {
		t.Fatal(err)
	}
	p.publish() // saves

	p = newPlane(t, path)
	slices.Reverse(services)
	slices.Reverse(workloads)
	fill(p, services, workloads)
	got := snapshot(p)
	if diff := cmp.Diff(want.Services, got.Services, byValue); diff != "" {
		t.Errorf("services after a restart (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want.Workloads, got.Workloads, byValue); diff != "" {
		t.Errorf("workloads after a restart (-want +got):\n%s", diff)
	}
	if again, err := p.Index("shop/later"); err != nil || again != index {
		t.Errorf("index %d (%v) after a restart, want %d", again, err, index)
	}
}

func TestDamagedStateIsKeptAside(t *testing.T) {
	for _, content := range []string{"", "{", `{"format":9}`, `{"format":1,"services":{"held":{"a":1,"b":1}}}`, `{"format":1,"workloads":{"held":{"a":1}}}`} {
		path := filepath.Join(t.TempDir(), "state.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		p := newPlane(t, path)
		if n, err := p.Index("a/b"); err != nil || n != 2 {
			t.Errorf("state %q: first index %d (%v), want 2", content, n, err)
		}
		kept, err := filepath.Glob(path + ".damaged-*")
		if err != nil || len(kept) != 1 {
			t.Fatalf("state %q: kept aside as %v (%v), want one file", content, kept, err)
		}
		if b, err := os.ReadFile(kept[0]); err != nil || string(b) != content {
			t.Errorf("kept %q (%v), want %q", b, err, content)
		}
		if text := metricsOf(t, p); !strings.Contains(text, "vitrine_control_state_errors_total 1\n") {
			t.Errorf("metrics do not count the damaged file:\n%s", text)
		}
	}
}

func TestIndexIsReusedAsLateAsPossible(t *testing.T) {
	p := newPlane(t, "")
	take := func(key string) mesh.Index {
		t.Helper()
		i, err := p.Index(key)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	a := take("ns/a")
	p.Release("ns/a")
	if b := take("ns/b"); b == a {
		t.Errorf("index %d is given to another workload at once", a)
	}
	if again := take("ns/a"); again != a {
		t.Errorf("a workload that comes back gets %d, had %d", again, a)
	}
	seen := map[mesh.Index]bool{}
	for i := range 65533 - 2 + 1 - 2 {
		n := take(fmt.Sprintf("ns/w%d", i))
		if seen[n] || !n.Valid() {
			t.Fatalf("index %d is given out twice or not valid", n)
		}
		seen[n] = true
	}
	if i, err := p.Index("ns/one-too-many"); err == nil {
		t.Errorf("index %d although all are held", i)
	}
	p.Release("ns/w7")
	p.Release("ns/w3")
	if got, want := take("ns/new"), mesh.Index(7+4); got != want {
		t.Errorf("got index %d, want %d, which is free the longest", got, want)
	}
}

func TestAdoptedWorkloadKeepsItsAddress(t *testing.T) {
	p := newPlane(t, "")
	w := workload("a", "x", "1", true)
	w.IP = mesh.IP(77, 2)
	p.SetWorkload(w)
	if n, err := p.Index("a/other"); err != nil || n == 2 {
		t.Errorf("index %d (%v) is already in use", n, err)
	}
	w = workload("a", "bad", "1", true)
	w.IP = netip.MustParseAddr("10.0.0.1")
	p.SetWorkload(w)
	if got := snapshot(p).Workloads; len(got) != 1 || got[0].CaseIP != mesh.CaseIP4(2) || got[0].CaseIP6 != mesh.CaseIP6(2) {
		t.Errorf("workloads %+v, want only a/x-1 with its addresses", got)
	}
}

// TestUndeclaredPortKeepsItsWirePort removes and adds services of a workload
// that declares nothing.
func TestUndeclaredPortKeepsItsWirePort(t *testing.T) {
	p := newPlane(t, "")
	p.SetWorkload(workload("a", "x", "1", true))
	port := func(n uint16) mesh.ServicePort { return mesh.ServicePort{Port: n} }
	p.SetServices("", []mesh.Service{service("a", "x", port(10), port(20), port(30))})
	wires := func() map[uint16]uint16 {
		out := map[uint16]uint16{}
		for _, wp := range snapshot(p).Workloads[0].Ports {
			out[wp.Port] = wp.WirePort
		}
		return out
	}
	if diff := cmp.Diff(map[uint16]uint16{10: 15100, 20: 15101, 30: 15102}, wires()); diff != "" {
		t.Error(diff)
	}
	p.SetServices("", []mesh.Service{service("a", "x", port(5), port(30))})
	if diff := cmp.Diff(map[uint16]uint16{5: 15103, 30: 15102}, wires()); diff != "" {
		t.Error(diff)
	}
}

// A disk that stalls delays the Snapshot whose addresses it is to keep, and
// nothing else.
func TestStalledDiskHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlane(t, filepath.Join(t.TempDir(), "addresses.json"))
		disk := make(chan struct{})
		p.replace = func(string, []byte) error { <-disk; return nil }
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- p.Run(ctx) }()
		p.SetWorkload(workload("shop", "web", "a", true))
		<-time.NewTimer(time.Second).C // of virtual time: Run waits for the disk
		for i := range 3 {
			if _, err := p.Index(fmt.Sprintf("shop/cart-%d", i)); err != nil {
				t.Error(err)
			}
			p.SetWorkload(workload("shop", "cart", strconv.Itoa(i), true))
		}
		if v := p.Snapshot().Version; v != 0 {
			t.Errorf("version %d was published before its addresses were on disk", v)
		}
		close(disk)
		for s := range p.Watch(t.Context()) {
			if len(s.Workloads) == 4 {
				break
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A workload that runs keeps its number, also when the state file is lost or says
// otherwise; it takes none that another one holds.
func TestClaim(t *testing.T) {
	p := newPlane(t, "")
	if err := p.Claim("shop/web", 40); err != nil {
		t.Fatal(err)
	}
	if i, err := p.Index("shop/web"); i != 40 || err != nil {
		t.Errorf("number %d, %v; want 40", i, err)
	}
	err := p.Claim("shop/cart", 40)
	if want := "address 127.77.0.40 of workload shop/cart: workload shop/web has it"; err == nil || err.Error() != want {
		t.Errorf("a number that is held: %v, want %s", err, want)
	}
	if i, err := p.Index("shop/cart"); i == 40 || err != nil {
		t.Errorf("number %d, %v", i, err)
	}
	p.Release("shop/web")
	if err := p.Claim("shop/cart", 40); err != nil {
		t.Errorf("a number that is free: %v", err)
	}
	if i, err := p.Index("shop/web"); i == 40 || err != nil {
		t.Errorf("number %d of another workload, %v", i, err)
	}
}
