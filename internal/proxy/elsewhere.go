package proxy

import (
	"context"
	"errors"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

// connectRetries is how often a request is taken to another endpoint because
// the one chosen could not be connected to: twice, as in Istio's default retry
// policy. Nothing of the request was sent then, so any may be repeated. It
// bridges the moment between the end of an endpoint and the arrival of the
// configuration without it.
const connectRetries = 2

// elsewhere moves a request that was under way to d, and could not connect to
// it for the reason err, to another endpoint of d's cluster. It reports whether
// there is one. The edge of the request's record changes with it.
func (c *conn) elsewhere(ctx context.Context, d *destination, rec *telemetry.Record, err error) bool {
	cl := d.cluster
	if cl.Type != mesh.ClusterEDS || cl.Service.IsZero() || ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return false
	}
	i := cl.Pick(random())
	if i >= 0 && cl.Members[i].Endpoint == d.endpoint {
		i = (i + 1) % len(cl.Members)
	}
	if i < 0 || cl.Members[i].Endpoint == d.endpoint {
		return false
	}
	d.endpoint.Failed(false)
	d.endpoint.Leave()
	d.endpoint = cl.Members[i].Endpoint
	d.endpoint.Enter()
	d.edge = c.p.edge(cl, i, nil)
	rec.Edge, rec.Upstream = d.edge, d.endpoint.Addr()
	c.p.o.Recorder.Retried("connect_failure")
	return true
}
