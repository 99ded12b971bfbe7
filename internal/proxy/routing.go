package proxy

import (
	"math/rand/v2"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

// routed is the decision for one request.
type routed struct {
	destination
	route   string        // name of the route, for the log
	timeout time.Duration // of the whole request; 0 is none
	failure *failure      // set: answer locally with this
}

// failure is an answer that the proxy gives itself. The texts are Envoy's, as
// programs and people know them.
type failure struct {
	code   int
	flags  telemetry.Flags
	detail string
	body   string
}

// The answers of the proxy itself. They are constants of the package in all but name.
//
//nolint:gochecknoglobals // immutable table
var (
	failNoRoute   = &failure{404, telemetry.FlagNR, "route_not_found", ""}
	failNoCluster = &failure{503, telemetry.FlagNC, "cluster_not_found", ""}
	failBlackHole = &failure{502, 0, "direct_response", ""}
	failNoHealthy = &failure{503, telemetry.FlagUH, "no_healthy_upstream", "no healthy upstream"}
	failConnect   = &failure{503, telemetry.FlagUF, "upstream_reset_before_response_started{connection_failure}", "upstream connect error or disconnect/reset before headers. reset reason: connection failure"}
	failTimedOut  = &failure{503, telemetry.FlagUF, "upstream_reset_before_response_started{connection_timeout}", "upstream connect error or disconnect/reset before headers. reset reason: connection timeout"}
	failReset     = &failure{503, telemetry.FlagUC, "upstream_reset_before_response_started{connection_termination}", "upstream connect error or disconnect/reset before headers. reset reason: connection termination"}
	failUpstream  = &failure{502, telemetry.FlagUPE, "upstream_reset_before_response_started{protocol_error}", "upstream connect error or disconnect/reset before headers. reset reason: protocol error"}
	failGone      = &failure{} // there is nobody to answer
	failUpload    = &failure{408, telemetry.FlagSI, "stream_idle_timeout", "stream timeout"}
	failTimeout   = &failure{504, telemetry.FlagUT, "response_timeout", "upstream request timeout"}
)

// route decides where the request with head h goes, by the configuration that
// the last refresh loaded. It does not allocate for configured destinations.
func (c *conn) route(h *Head) routed {
	cl := c.target.cluster
	var r routed
	if c.target.routes != nil {
		m := c.asked.Match(c.target.routes, h.Authority, h.Path)
		if m == nil {
			return routed{destination: c.unrouted(h.Authority), failure: failNoRoute}
		}
		r.route, r.timeout = m.Name, m.Timeout
		i := 0
		if len(m.Clusters) > 1 {
			i = m.Pick(uint32(random()))
		}
		if i < 0 || i >= len(m.Clusters) {
			r.destination, r.failure = c.unrouted(h.Authority), failNoRoute
			return r
		}
		if cl = c.snap.clusters[m.Clusters[i].Cluster]; cl == nil {
			r.destination, r.failure = c.unrouted(h.Authority), failNoCluster
			return r
		}
	}
	if cl == nil {
		r.destination, r.failure = c.unrouted(h.Authority), failNoRoute
		return r
	}
	r.destination = c.choose(cl, h.Authority)
	if r.endpoint == nil {
		r.failure = failNoHealthy
		if cl.Type == mesh.ClusterBlackHole && cl.Name == mesh.BlackHoleCluster {
			r.failure = failBlackHole
		}
	}
	return r
}

// random is for choices among endpoints: fast and not predictable, but not for
// secrets.
func random() uint64 { return rand.Uint64() } //nolint:gosec // no secret depends on it
