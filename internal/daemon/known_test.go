package daemon

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/xds"
)

// proxyOf connects as the proxy of w until the returned function is called. Each
// configuration is given to applied, and answered with what comes from answer.
func proxyOf(t *testing.T, m *Mesh, w *mesh.Workload) (applied chan *mesh.NodeConfig, answer chan error, leave func()) {
	t.Helper()
	applied, answer = make(chan *mesh.NodeConfig), make(chan error)
	c, err := xds.NewClient(xds.ClientOptions{Target: m.path(xdsSocket), NodeID: w.NodeID(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- c.Run(ctx, func(cfg *mesh.NodeConfig) error {
			select {
			case applied <- cfg:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case err := <-answer:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	leave = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(leave)
	return applied, answer, leave
}

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("not after a minute: %s", what)
		}
	}
}

// next is the next configuration that a proxy is told.
func next(t *testing.T, applied <-chan *mesh.NodeConfig) *mesh.NodeConfig {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	select {
	case cfg := <-applied:
		return cfg
	case <-limit.C:
		t.Fatal("a proxy was told nothing for a minute")
		return nil
	}
}

// lists reports whether a configuration has the workload as an endpoint.
func lists(cfg *mesh.NodeConfig, w *mesh.Workload) bool {
	return slices.ContainsFunc(cfg.Endpoints, func(c mesh.ClusterEndpoints) bool {
		return slices.ContainsFunc(c.Endpoints, func(e mesh.Endpoint) bool { return e.Workload == w.Key() })
	})
}

// TestKnown: that workloads are ready is known when each proxy has answered for a
// configuration that has them, and not when it was told, published or sent. Who
// refuses it, or leaves, is not waited for.
func TestKnown(t *testing.T) {
	m := serving(t)
	now := m.started
	back := mesh.Workload{
		Namespace: "shop", Name: "back-1", Labels: map[string]string{"app": "back"}, Ports: []mesh.WorkloadPort{{Port: 80}},
		IP: mesh.IP(m.net, 9), CaseIP: mesh.CaseIP4(9),
	}
	front := mesh.Workload{Namespace: "shop", Name: "front-1", IP: mesh.IP(m.net, 10), CaseIP: mesh.CaseIP4(10)}
	m.plane.SetServices("files", []mesh.Service{{
		ServiceRef: mesh.ServiceRef{Name: "back", Namespace: "shop"}, Selector: back.Labels, Ports: []mesh.ServicePort{{Port: 80}},
	}})
	m.plane.SetWorkload(front)
	m.plane.SetWorkload(back)
	// What a proxy is told first is then whole.
	eventually(t, "two workloads are published", func() bool {
		s, whole := m.plane.Published()
		return whole && len(s.Workloads) == 2
	})
	applied, answer, leave := proxyOf(t, m, &front)
	next(t, applied)
	if m.known(nil, now) {
		t.Error("known although a proxy owes its first answer")
	}
	answer <- nil
	eventually(t, "known after an answer", func() bool { return m.known(nil, now) })

	back.Ready = true
	pods := []local.PodStatus{{Workload: back}}
	if m.known(pods, now) {
		t.Error("known before the control plane was told")
	}
	m.plane.SetWorkload(back)
	if m.known(pods, now) {
		t.Error("known as soon as the control plane was told")
	}
	if cfg := next(t, applied); !lists(cfg, &back) {
		t.Fatalf("endpoints %+v, want one of back", cfg.Endpoints)
	}
	if m.known(pods, now) {
		t.Error("known although a proxy has not answered")
	}
	answer <- errors.New("no")
	if m.known(pods, now) {
		t.Error("known although the proxy of back did not come yet")
	}
	now = now.Add(2 * reconnecting) // it will not come
	eventually(t, "known after a refusal", func() bool { return m.known(pods, now) })
	if m.known(nil, now) {
		t.Error("known to be ready although it is not any more")
	}

	back.Ready = false
	m.plane.SetWorkload(back)
	if cfg := next(t, applied); lists(cfg, &back) {
		t.Fatalf("endpoints %+v, want none of back", cfg.Endpoints)
	}
	if m.known(nil, now) {
		t.Error("known although a proxy has not answered for the end of back")
	}
	leave()
	eventually(t, "known when the proxy has gone", func() bool { return m.known(nil, now) })
}
