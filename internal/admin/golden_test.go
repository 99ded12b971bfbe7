package admin

import (
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files in testdata")

// exposition is a piece of what a proxy exposes.
const exposition = `# HELP istio_requests_total Requests handled.
# TYPE istio_requests_total counter
istio_requests_total{reporter="source",response_code="200"} 3
istio_requests_total{reporter="source",response_code="503"} 0
# TYPE istio_request_duration_milliseconds histogram
istio_request_duration_milliseconds_bucket{reporter="source",response_code="200",le="1"} 1
istio_request_duration_milliseconds_bucket{reporter="source",response_code="200",le="5"} 3
istio_request_duration_milliseconds_bucket{reporter="source",response_code="200",le="+Inf"} 4
istio_request_duration_milliseconds_sum{reporter="source",response_code="200"} 17.25
istio_request_duration_milliseconds_count{reporter="source",response_code="200"} 4
# TYPE vitrine_protocol_detection_seconds histogram
vitrine_protocol_detection_seconds_bucket{le="0.1"} 0
vitrine_protocol_detection_seconds_bucket{le="+Inf"} 0
vitrine_protocol_detection_seconds_sum 0
vitrine_protocol_detection_seconds_count 0
# TYPE go_goroutines gauge
go_goroutines 12
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 1.3e+07
`

type fixedClusters []ClusterStatus

func (c fixedClusters) Clusters() []ClusterStatus { return c }

type fixedConfig struct{ err error }

func (fixedConfig) Current() (*mesh.NodeConfig, string, time.Time) {
	return &mesh.NodeConfig{Listeners: []mesh.Listener{
		{Name: "240.240.0.1_80", Direction: mesh.Outbound, Address: netip.MustParseAddrPort("240.240.0.1:80")},
		{Name: "inbound_8080", Direction: mesh.Inbound, Address: netip.MustParseAddrPort("127.77.0.5:15100"), Bind: true},
	}}, "7", time.Date(2026, 11, 22, 10, 0, 0, 5e6, time.UTC)
}

func (c fixedConfig) Resources() ([]Resource, error) {
	const types = `{"@type":"type.googleapis.com/envoy.config.`
	return []Resource{
		{ResourceListener, "inbound_8080", json.RawMessage(types + `listener.v3.Listener","name":"inbound_8080"}`)},
		{ResourceRoute, "80", json.RawMessage(types + `route.v3.RouteConfiguration","name":"80"}`)},
		{ResourceCluster, "outbound|80||catalogue.shop.svc.cluster.local", json.RawMessage(types + `cluster.v3.Cluster","name":"outbound|80||catalogue.shop.svc.cluster.local"}`)},
		{ResourceCluster, "PassthroughCluster", json.RawMessage(types + `cluster.v3.Cluster","name":"PassthroughCluster","type":"ORIGINAL_DST"}`)},
		{ResourceEndpoints, "outbound|80||catalogue.shop.svc.cluster.local", json.RawMessage(types + `endpoint.v3.ClusterLoadAssignment","clusterName":"outbound|80||catalogue.shop.svc.cluster.local"}`)},
	}, c.err
}

func full(t *testing.T) *Server {
	t.Helper()
	return newServer(t, func(o *Options) {
		o.Metrics, o.Scrape = textMetrics(exposition), textMetrics(exposition)
		o.Started = time.Now()
		o.Config = fixedConfig{}
		o.Level = &slog.LevelVar{}
		o.Clusters = fixedClusters{
			{Name: "PassthroughCluster"},
			{Name: "outbound|80||catalogue.shop.svc.cluster.local", EDS: true, Hosts: []HostStatus{
				{
					Address: netip.MustParseAddrPort("127.77.0.7:15100"), Hostname: "shop/catalogue-v2-7", Weight: 3,
					CxActive: 1, CxTotal: 2, CxConnectFail: 3, RqActive: 4, RqTotal: 5, RqSuccess: 6, RqError: 7, RqTimeouts: 8,
				},
				{Address: netip.MustParseAddrPort("[fd00::1]:80"), Unhealthy: true},
			}},
		}
	})
}

// TestTranscripts holds the answers to a file: a request line, status, body.
func TestTranscripts(t *testing.T) {
	for _, requests := range []struct {
		name  string
		paths []string
	}{
		{"stats", []string{
			"GET /stats", "GET /stats?usedonly", "GET /stats?filter=code%3D.5", "GET /stats?filter=upstream_(rq|cx)_total",
			"GET /stats?type=Gauges", "GET /stats?type=Histograms&usedonly", "GET /stats?type=Counters&filter=^istio",
			"GET /stats?format=json", "GET /stats?format=json&filter=nothing",
			"GET /stats?filter=(", "GET /stats?format=xml", "GET /stats?type=Bogus",
		}},
		{"clusters", []string{"GET /clusters", "GET /clusters?format=json", "GET /clusters?format=yaml"}},
		{"config", []string{
			"GET /config_dump", "GET /config_dump?include_eds", "GET /config_dump?resource=dynamic_listeners",
			"GET /config_dump?resource=dynamic_active_clusters&name_regex=Pass", "GET /config_dump?resource=nothing",
			"GET /config_dump?name_regex=(", "GET /listeners", "GET /listeners?format=json", "GET /listeners?format=x",
		}},
		{"server", []string{
			"GET /help", "GET /", "GET /ready", "GET /server_info", "GET /certs", "GET /runtime",
			"POST /logging", "POST /logging?level=debug", "POST /logging?level=warning", "POST /logging?level=loud",
			"POST /quitquitquit", "POST /healthcheck/ok", "GET /nowhere", "GET /logging",
		}},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := full(t)
			<-time.NewTimer(90 * time.Second).C // of uptime
			var got strings.Builder
			for _, line := range requests.paths {
				method, path, _ := strings.Cut(line, " ")
				code, body := do(s, method, path, "Host", "localhost:15000")
				fmt.Fprintf(&got, "%s\n---- %d\n%s\n", line, code, strings.ReplaceAll(body, runtime.Version(), "GOVERSION"))
			}
			golden(t, requests.name+".txt", got.String())
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, diff)
	}
}
