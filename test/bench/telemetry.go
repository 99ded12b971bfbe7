package main

import (
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

// telemetryNanos is what the account of one request costs, from Begin to
// Finish: the best of some runs. On and off cannot be told apart by load on any
// machine that is shared: the difference is below the noise.
func telemetryNanos() (float64, error) {
	self := mesh.Workload{Name: "client-1", Namespace: mesh.DefaultNamespace, Owner: "client", Cluster: mesh.DefaultCluster}
	rec, err := telemetry.New(telemetry.Options{Self: self, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return 0, fmt.Errorf("measure telemetry: %w", err)
	}
	edge := rec.Edge(telemetry.EdgeKey{Direction: mesh.Outbound, Service: mesh.ServiceRef{Host: "origin.default.svc.cluster.local", Name: "origin", Namespace: mesh.DefaultNamespace}})
	addr := netip.MustParseAddrPort(originAddr)
	method, path, host, agent := []byte("GET"), []byte("/bench"), []byte("origin.test"), []byte("bench")
	id := []byte("01234567-89ab-4cde-8fab-0123456789ab")
	const n = 200_000
	best := math.Inf(1)
	for range 5 {
		begin := time.Now()
		for range n {
			r := rec.Begin(mesh.Outbound, telemetry.Now())
			r.SetRequest(method, path, host, agent)
			r.SetRequestID(id)
			r.Edge, r.Code, r.Detail, r.Version = edge, 200, "via_upstream", "HTTP/1.1"
			r.Upstream, r.Downstream, r.DownstreamLocal = addr, addr, addr
			r.BytesReceived, r.BytesSent, r.UpstreamWait = 90, 1200, 200*time.Microsecond
			r.Finish()
		}
		best = min(best, float64(time.Since(begin).Nanoseconds())/n)
	}
	return best, nil
}
