package sidecar

import (
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/admin"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/proxy"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
	"github.com/vitrine-mesh/vitrine/internal/xds"
)

// configView shows the admin what the proxy and its configuration client know.
type configView struct {
	px     *proxy.Proxy
	client *xds.Client
	rec    *telemetry.Recorder
}

// Current implements admin.Config.
func (v *configView) Current() (cfg *mesh.NodeConfig, version string, updated time.Time) {
	st := v.client.Status()
	return v.px.Config(), st.Version, st.LastApplied
}

// Resources implements admin.Config.
func (v *configView) Resources() ([]admin.Resource, error) {
	cfg := v.px.Config()
	if cfg == nil {
		return nil, nil
	}
	documents, err := xds.Documents(cfg)
	if err != nil {
		return nil, err
	}
	kinds := map[xds.Kind]admin.ResourceKind{
		xds.CDS: admin.ResourceCluster, xds.EDS: admin.ResourceEndpoints, xds.LDS: admin.ResourceListener, xds.RDS: admin.ResourceRoute,
	}
	out := make([]admin.Resource, 0, len(documents))
	for _, d := range documents {
		out = append(out, admin.Resource{Kind: kinds[d.Kind], Name: d.Name, JSON: d.JSON})
	}
	return out, nil
}

// Clusters implements admin.Clusters.
func (v *configView) Clusters() []admin.ClusterStatus {
	stats := v.px.Stats()
	out := make([]admin.ClusterStatus, 0, len(stats.Clusters))
	for _, c := range stats.Clusters {
		cs := admin.ClusterStatus{Name: c.Name, EDS: c.Type == mesh.ClusterEDS}
		for _, e := range c.Endpoints {
			addr, err := netip.ParseAddrPort(e.Address)
			if err != nil {
				continue // a name, which Envoy's page has no place for
			}
			cs.Hosts = append(cs.Hosts, admin.HostStatus{
				Address: addr, Hostname: e.Workload, Weight: e.Weight,
				CxActive: e.ActiveConnections, CxTotal: e.TotalConnection,
				RqActive: e.ActiveRequests, RqTotal: e.TotalRequests,
				CxConnectFail: e.ConnectFailures, RqSuccess: e.Succeeded, RqError: e.FailedRequests, RqTimeouts: e.Timeouts,
			})
		}
		out = append(out, cs)
	}
	return out
}

// WriteText implements admin.Metrics.
func (v *configView) WriteText(w io.Writer) error {
	v.refresh()
	return v.rec.WriteText(w)
}

// scrape brings the gauges up to date before each scrape.
func (v *configView) scrape(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		v.refresh()
		next.ServeHTTP(w, req)
	})
}

func (v *configView) refresh() {
	st := v.client.Status()
	v.rec.SetConnected(st.Connected)
	v.rec.SetConfigVersion(versionNumber(st.Version))
}

// versionNumber is a number for a version, which ends in a hash in hexadecimal
// digits: its last 53 bits, which a float64 holds exactly. Like the version gauges
// of Envoy it is there to be compared, not to be read.
func versionNumber(version string) uint64 {
	n, err := strconv.ParseUint(version[strings.LastIndexByte(version, '-')+1:], 16, 64)
	if err != nil {
		return 0 // none yet
	}
	return n & (1<<53 - 1)
}
