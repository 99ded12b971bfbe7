package daemon

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/metricstore"
)

// follow keeps the scraped targets and the proxies in step with the snapshot.
func (m *Mesh) follow(ctx context.Context) error {
	m.store.SetTargets("vitrine", []metricstore.Target{{
		Address: m.ctrlAddr, Path: "/metrics", Labels: map[string]string{"app": "istiod", "pod": "vitrine", "namespace": "istio-system"},
	}})
	for s := range m.plane.Watch(ctx) {
		m.xds.Notify()
		m.announced.set(s.Version)
		m.store.SetTargets(proxyJob, m.targets(s))
	}
	return nil
}

// awaitUnlisted waits until every connected proxy has answered for a snapshot in
// which the workload is not ready.
func (m *Mesh) awaitUnlisted(ctx context.Context, key string) error {
	return m.awaitKnown(ctx, "not ready", key, func(w *mesh.Workload) bool { return w == nil || !w.Ready })
}

// awaitListed waits until every connected proxy has answered for a snapshot that
// has the workload: what it sends before would be counted as of an unknown source.
func (m *Mesh) awaitListed(ctx context.Context, key string) error {
	return m.awaitKnown(ctx, "new", key, func(w *mesh.Workload) bool { return w != nil })
}

// awaitKnown waits for the answers to the first snapshot in which is holds of the
// workload, nil if it is not there.
func (m *Mesh) awaitKnown(ctx context.Context, what, key string, is func(*mesh.Workload) bool) error {
	for s := range m.plane.Watch(ctx) {
		var w *mesh.Workload
		if i := slices.IndexFunc(s.Workloads, func(w mesh.Workload) bool { return w.Key() == key }); i >= 0 {
			w = &s.Workloads[i]
		}
		if !is(w) {
			continue
		}
		if m.announced.await(ctx, s.Version) != nil {
			break
		}
		return m.xds.Converged(ctx)
	}
	return fmt.Errorf("wait until %s is announced as %s: %w", key, what, ctx.Err())
}

// reconnecting is how long the proxies that an earlier control plane left running
// may take to come to this one: longer than the longest pause between two attempts
// (xds.ClientOptions.MaxBackoff).
const reconnecting = 10 * time.Second

// known reports whether the proxies know all that the control plane was told, and
// with it which workloads are ready: those that are in pods. Proxies that refuse it,
// cannot be told, or are gone are not waited for.
func (m *Mesh) known(pods []local.PodStatus, now time.Time) bool {
	ready := map[string]bool{}
	for i := range pods {
		if w := &pods[i].Workload; w.Ready {
			ready[w.Key()] = true
		}
	}
	// What the pods tell comes to the control plane by hooks, and is published after
	// a moment.
	s, whole := m.plane.Published()
	if !whole {
		return false
	}
	listed := 0
	for i := range s.Workloads {
		if w := &s.Workloads[i]; !w.Ready {
			continue
		} else if !ready[w.Key()] {
			return false
		}
		listed++
	}
	if told, _ := m.announced.get(); listed != len(ready) || told < s.Version {
		return false
	}
	if len(m.xds.Waiting()) > 0 {
		return false
	}
	if now.Sub(m.started) > reconnecting {
		return true
	}
	for _, p := range m.xds.Status() {
		if key, err := mesh.ParseNodeID(p.Node); err == nil {
			delete(ready, key)
		}
	}
	return len(ready) == 0
}

// nodeConfig answers a proxy's request for its configuration.
func (m *Mesh) nodeConfig(nodeID string) (*mesh.NodeConfig, error) {
	key, err := mesh.ParseNodeID(nodeID)
	if err != nil {
		return nil, err
	}
	return m.plane.View(key)
}

// proxyJob is the scrape job of proxies, named as in Istio's addon.
const proxyJob = "kubernetes-pods"

// targets are the metrics ports of all proxies that run.
func (m *Mesh) targets(s *mesh.Snapshot) []metricstore.Target {
	out := make([]metricstore.Target, 0, len(s.Workloads))
	for i := range s.Workloads {
		out = append(out, proxyTarget(&s.Workloads[i]))
	}
	return out
}

// proxyTarget labels a proxy as Istio's addon Prometheus does: the pod's labels
// with their names made valid, namespace and pod.
func proxyTarget(w *mesh.Workload) metricstore.Target {
	labels := make(map[string]string, len(w.Labels)+3)
	for _, k := range slices.Sorted(maps.Keys(w.Labels)) { // of two that become one name, always the same counts
		labels[labelName(k)] = w.Labels[k]
	}
	maps.Copy(labels, map[string]string{"namespace": w.Namespace, "pod": w.Name, "node": "localhost"})
	return metricstore.Target{
		Address: net.JoinHostPort(w.IP.String(), strconv.Itoa(mesh.PortMerged)), Path: "/stats/prometheus", Labels: labels,
	}
}

// labelName makes a Kubernetes label's name a Prometheus one, as labelmap does.
func labelName(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, s)
}
