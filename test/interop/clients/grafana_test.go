package clients

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/log"
	"github.com/grafana/grafana/pkg/promlib"
)

// TestGrafanaDataSource: Grafana's data source takes us for a Prometheus in good health,
// and gets what panels, variables and its editor of queries ask for.
func TestGrafanaDataSource(t *testing.T) {
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		t.Run(method, func(t *testing.T) {
			service := promlib.NewService(nil, log.NewNullLogger(), nil)
			source := backend.PluginContext{OrgID: 1, DataSourceInstanceSettings: &backend.DataSourceInstanceSettings{
				ID: 1, UID: "vitrine", Type: "prometheus", Name: "Vitrine", URL: running.prometheus,
				JSONData: []byte(`{"httpMethod":"` + method + `","timeInterval":"5s"}`),
			}}
			health, err := service.CheckHealth(t.Context(), &backend.CheckHealthRequest{PluginContext: source})
			if err != nil || health.Status != backend.HealthStatusOk || !strings.Contains(string(health.JSONDetails), `"application":"Prometheus"`) {
				t.Errorf("health %v, %v", health, err)
			}
			now := time.Now()
			for _, query := range []map[string]any{
				{"range": true, "expr": `sum by (destination_service_name)(rate(istio_requests_total{reporter="destination"}[$__rate_interval]))`},
				{"instant": true, "expr": `sum(istio_requests_total)`},
				{"range": true, "format": "heatmap", "expr": `sum by (le)(increase(istio_request_duration_milliseconds_bucket[$__rate_interval]))`},
			} {
				query["refId"] = "A"
				text, err := json.Marshal(query)
				if err != nil {
					t.Fatal(err)
				}
				answer, err := service.QueryData(t.Context(), &backend.QueryDataRequest{PluginContext: source, Queries: []backend.DataQuery{{
					RefID: "A", JSON: text, Interval: 15 * time.Second, MaxDataPoints: 200,
					TimeRange: backend.TimeRange{From: now.Add(-5 * time.Minute), To: now},
				}}})
				if err != nil {
					t.Errorf("%s: %v", query["expr"], err)
					continue
				}
				rows := 0
				for _, frame := range answer.Responses["A"].Frames {
					n, _ := frame.RowLen()
					rows += n
				}
				if err := answer.Responses["A"].Error; err != nil || rows == 0 {
					t.Errorf("%s: %d values, %v", query["expr"], rows, err)
				}
			}
			for path, want := range map[string]string{
				"api/v1/labels":                                `"destination_workload"`,
				"api/v1/label/__name__/values":                 `"istio_requests_total"`,
				"api/v1/label/destination_service_name/values": `"web-app"`,
				"api/v1/metadata":                              `"istio_requests_total"`,
				"api/v1/series?match[]=istio_build":            `"istio_build"`,
				"api/v1/rules":                                 `"groups"`,
				"api/v1/status/buildinfo":                      `"version"`,
			} {
				name, _, _ := strings.Cut(path, "?")
				err := service.CallResource(t.Context(), &backend.CallResourceRequest{PluginContext: source, Method: http.MethodGet, Path: name, URL: path},
					backend.CallResourceResponseSenderFunc(func(answer *backend.CallResourceResponse) error {
						if answer.Status != http.StatusOK || !strings.Contains(string(answer.Body), want) {
							t.Errorf("%s: %d %.300s", path, answer.Status, answer.Body)
						}
						return nil
					}))
				if err != nil {
					t.Errorf("%s: %v", path, err)
				}
			}
		})
	}
}
