package sidecar

import (
	"cmp"
	"encoding/json"
	"fmt"
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

// Resources implements admin.Config: the parts of xds.Dump, one by one.
func (v *configView) Resources() ([]admin.Resource, error) {
	cfg := v.px.Config()
	if cfg == nil {
		return nil, nil
	}
	data, err := xds.Dump(cfg)
	if err != nil {
		return nil, err
	}
	type state struct {
		Cluster, Listener json.RawMessage
		Routes            json.RawMessage `json:"route_config"`
		Endpoints         json.RawMessage `json:"endpoint_config"`
	}
	var dump struct {
		Configs []struct {
			Clusters  []state `json:"dynamic_active_clusters"`
			Listeners []struct {
				Active state `json:"active_state"`
			} `json:"dynamic_listeners"`
			Routes    []state `json:"dynamic_route_configs"`
			Endpoints []state `json:"dynamic_endpoint_configs"`
		}
	}
	if err := json.Unmarshal(data, &dump); err != nil {
		return nil, fmt.Errorf("read configuration dump: %w", err)
	}
	var out []admin.Resource
	add := func(kind admin.ResourceKind, body json.RawMessage) {
		var named struct {
			Name    string
			Cluster string `json:"cluster_name"` // ClusterLoadAssignment has no name
		}
		if err = json.Unmarshal(body, &named); err == nil {
			out = append(out, admin.Resource{Kind: kind, Name: cmp.Or(named.Name, named.Cluster), JSON: body})
		}
	}
	for _, c := range dump.Configs {
		for _, x := range c.Clusters {
			add(admin.ResourceCluster, x.Cluster)
		}
		for _, x := range c.Listeners {
			add(admin.ResourceListener, x.Active.Listener)
		}
		for _, x := range c.Routes {
			add(admin.ResourceRoute, x.Routes)
		}
		for _, x := range c.Endpoints {
			add(admin.ResourceEndpoints, x.Endpoints)
		}
	}
	return out, err
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
