//go:build interop

package interop

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/meshtest"
)

// startPrometheus starts Debian's Prometheus, which scrapes nothing and takes
// remote writes, and returns its base URL.
func startPrometheus(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, []byte("global: {scrape_interval: 5s}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0") // Prometheus does not say which port it got
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	start(t, 20*time.Second, "prometheus", "--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"),
		"--web.listen-address", addr, "--web.enable-remote-write-receiver", "--log.level", "warn")
	base := "http://" + addr
	meshtest.Eventually(t, func() error {
		_, err := get(t, base+"/-/ready")
		return err
	})
	return base
}

// withCaller is the shop with a workload that has web answer it 100 times.
func withCaller(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return shop(t) + fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: caller}
spec:
  selector: {matchLabels: {app: caller}}
  template:
    metadata: {labels: {app: caller, version: v1}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: main
        command: [%q, %s, "http://web:8080/"]
`, self, callerArg)
}

const requests = `sum(istio_requests_total{reporter="source",source_workload="caller",destination_service_name="web",response_code="200"})`

// TestRealPrometheusAsStore: what a real Prometheus received by remote write is
// what our own store has, and the command line works from it.
func TestRealPrometheusAsStore(t *testing.T) {
	base := startPrometheus(t)
	m := startMesh(t, withCaller(t), "--remote-write", base+"/api/v1/write", "--query-url", base)
	own := m.status.Prometheus
	for _, store := range []string{own, base} {
		meshtest.Eventually(t, func() error {
			got, err := scalar(t, store, requests)
			if err == nil && got != "100" {
				err = fmt.Errorf("%s has %s requests, want 100", store, got)
			}
			return err
		})
	}
	// Histograms, the other side's counters and targets arrive too; the proxies are
	// scraped one after the other.
	for q, want := range map[string]string{
		`sum(istio_request_duration_milliseconds_bucket{reporter="source",source_workload="caller",le="+Inf",response_code="200"})`: "100",
		`sum(istio_request_bytes_count{reporter="destination",destination_workload="web",response_code="200"})`:                     "100",
		`count(up == 1)`: strconv.Itoa(len(services) + 3),
	} {
		meshtest.Eventually(t, func() error {
			got, err := scalar(t, base, q)
			if err == nil && got != want {
				err = fmt.Errorf("%s is %s, want %s", q, got, want)
			}
			return err
		})
	}

	out, err := m.cli(t, "query", requests)
	if err != nil || !regexp.MustCompile(`(?m)\b100$`).MatchString(strings.TrimSpace(out)) {
		t.Errorf("vitrine query: %s, %v", out, err)
	}
	meshtest.Eventually(t, func() error {
		out, err := m.cli(t, "graph", "--window", "5m")
		if err == nil && !regexp.MustCompile(`(?m)^caller\S*\s+web\S*\s+web\.default\s+http\s`).MatchString(out) {
			err = fmt.Errorf("no edge from caller to web in\n%s", out)
		}
		return err
	})
}

// TestPromtool: the tool of Prometheus's own makers reads our API and finds
// nothing wrong with our expositions.
func TestPromtool(t *testing.T) {
	m := startMesh(t, withCaller(t))
	base := m.status.Prometheus
	meshtest.Eventually(t, func() error {
		out, err := command(t, "promtool", "query", "instant", base, requests)
		if err == nil && !strings.Contains(out, "=> 100 @") {
			err = fmt.Errorf("promtool query instant: %s", out)
		}
		return err
	})
	for _, args := range [][]string{
		{"query", "range", base, requests},
		{"query", "series", "--match", `istio_requests_total{destination_service_name="web"}`, base},
		{"query", "labels", base, "destination_workload"},
	} {
		if out, err := command(t, "promtool", args...); err != nil || !strings.Contains(out, "web") && !strings.Contains(out, "=>") && !strings.Contains(out, "100 @") {
			t.Errorf("promtool %s: %s, %v", strings.Join(args, " "), out, err)
		}
	}
	web := m.pod(t, "web").IP
	for _, url := range []string{
		"http://" + web + ":15020/metrics", "http://" + web + ":15020/stats/prometheus", "http://" + web + ":15090/stats/prometheus",
		m.status.Control + "/metrics", base + "/metrics",
	} {
		t.Run(url[len("http://"):], func(t *testing.T) {
			text, err := get(t, url)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "metrics")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := command(t, "bash", "-c", "promtool check metrics 2>&1 < "+file)
			for line := range strings.Lines(out) {
				if line = strings.TrimSpace(line); line != "" && !given(line) {
					t.Error(line)
				}
			}
			if err != nil && out == "" {
				t.Error(err)
			}
		})
	}
}

// given reports whether promtool complains of a name that is not ours to
// choose: that of Istio's durations, of istiod's counters, and of Prometheus's
// own metrics of its engine.
func given(complaint string) bool {
	name, what, _ := strings.Cut(complaint, " ")
	switch {
	case name == "istio_request_duration_milliseconds":
		return what == `use base unit "seconds" instead of "milliseconds"`
	case strings.HasPrefix(name, "pilot_"):
		return what == `counter metrics should have "_total" suffix`
	case strings.HasPrefix(name, "prometheus_"):
		return what == "metric name should not include type 'histogram'"
	}
	return false
}
