package proxy

import (
	"context"
	"errors"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

// connectRetries is how often a request or an opaque connection is taken to
// another endpoint because the one chosen could not be connected to: twice, as
// in Istio's default retry policy. Nothing of it was sent then, so any may be
// repeated. It bridges the moment between the end of an endpoint and the arrival
// of the configuration without it.
const connectRetries = 2

// other moves d, whose endpoint could not be connected to for the reason err, to
// another endpoint of its cluster, and counts that. It reports whether there is
// one.
func (c *conn) other(ctx context.Context, d *destination, err error) bool {
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
	d.endpoint = cl.Members[i].Endpoint
	d.edge = c.p.edge(cl, i, nil)
	c.p.o.Recorder.Retried("connect_failure")
	return true
}

// elsewhere is other for a request, which is under way to d already. The edge of
// its record changes with it.
func (c *conn) elsewhere(ctx context.Context, d *destination, rec *telemetry.Record, err error) bool {
	refused := d.endpoint
	if !c.other(ctx, d, err) {
		return false
	}
	refused.Failed(false)
	refused.Leave()
	d.endpoint.Enter()
	rec.Edge, rec.Upstream = d.edge, d.endpoint.Addr()
	return true
}
