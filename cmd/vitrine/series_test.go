package main

import (
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
)

func series(value float64, labels ...string) daemon.QuerySeries {
	s := daemon.QuerySeries{Labels: map[string]string{}, Points: []daemon.QueryPoint{{Time: time.Unix(0, 0), Value: value}}}
	for i := 0; i < len(labels); i += 2 {
		s.Labels[labels[i]] = labels[i+1]
	}
	return s
}

// istio is a raw series as proxies expose them.
func istio(value float64, labels ...string) daemon.QuerySeries {
	s := series(value,
		"__name__", "istio_requests_total", "app", "client", "connection_security_policy", "none",
		"destination_app", "web", "destination_canonical_revision", "v1", "destination_canonical_service", "web",
		"destination_service", "web.default.svc.cluster.local", "destination_service_name", "web", "namespace", "default",
		"reporter", "source", "request_protocol", "http", "response_code", "200", "response_flags", "-",
	)
	maps.Copy(s.Labels, series(0, labels...).Labels)
	return s
}

func TestPrintVector(t *testing.T) {
	long := strings.Repeat("x", 60)
	for name, tc := range map[string]struct {
		series []daemon.QuerySeries
		want   string
	}{
		"scalar": {[]daemon.QuerySeries{series(2)}, `
VALUE
2
`},
		"text": {[]daemon.QuerySeries{{Text: "hello"}}, `
VALUE
hello
`},
		"a narrow table has a column for each label": {[]daemon.QuerySeries{
			series(50, "reporter", "source"), series(0.125, "reporter", "destination", "app", "web"),
		}, `
app   reporter      VALUE
      source        50
web   destination   0.125
`},
		"raw series tell once what they share": {[]daemon.QuerySeries{
			istio(50), istio(3, "response_code", "503", "response_flags", "UF"),
		}, `
all are  istio_requests_total{app="client", connection_security_policy="none", destination_app="web",
    destination_canonical_revision="v1", destination_canonical_service="web",
    destination_service="web.default.svc.cluster.local", destination_service_name="web", namespace="default",
    reporter="source", request_protocol="http"}
response_code   response_flags   VALUE
200             -                50
503             UF               3
`},
		"one raw series": {[]daemon.QuerySeries{istio(12345678)}, `
VALUE      SERIES
12345678   istio_requests_total{app="client", connection_security_policy="none", destination_app="web",
               destination_canonical_revision="v1", destination_canonical_service="web",
               destination_service="web.default.svc.cluster.local", destination_service_name="web",
               namespace="default", reporter="source", request_protocol="http", response_code="200",
               response_flags="-"}
`},
		"series that share little": {[]daemon.QuerySeries{
			series(1, "job", "a", "path", long, "to", "1"+long), series(2, "job", "a", "path", "1"+long, "to", long), series(3, "job", "a"),
		}, `
all are  {job="a"}
VALUE   SERIES
1       {path="` + long + `",
            to="1` + long + `"}
2       {path="1` + long + `",
            to="` + long + `"}
3       {}
`},
	} {
		var out strings.Builder
		if err := printVector(&out, tc.series); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.TrimPrefix(tc.want, "\n"), out.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		for line := range strings.Lines(out.String()) {
			if len(line) > maxWidth+1 {
				t.Errorf("%s: a line of %d columns: %s", name, len(line)-1, line)
			}
		}
	}
}

func TestPrintLines(t *testing.T) {
	long := strings.Repeat("x", 60)
	for want, in := range map[string][]daemon.QuerySeries{
		"code   VALUE\n200    5\n": {series(5, "code", "200")},
		"VALUE   SERIES\n" +
			"7       up{a=\"" + long + "\", b=\"" + long + "\"}\n" +
			"12      up{a=\"1\\n2\"}\n": {series(7, nameLabel, "up", "a", long, "b", long), series(12, nameLabel, "up", "a", "1\n2")},
	} {
		var out strings.Builder
		if err := printLines(&out, in); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("lines (-want +got):\n%s", diff)
		}
	}
}

// No line is too wide, but for a label that is so alone; and nothing is lost.
func TestSeriesNameWraps(t *testing.T) {
	for n := range 40 {
		labels := map[string]string{nameLabel: "m"}
		for i := range n {
			labels[fmt.Sprintf("label_%02d", i)] = strings.Repeat("v", (i*7)%31)
		}
		text := seriesName(labels, "12   ", "         ")
		var joined []string
		for line := range strings.Lines(text) {
			if len(strings.TrimRight(line, "\n")) > maxWidth {
				t.Errorf("%d labels: a line of %d columns: %s", n, len(line), line)
			}
			joined = append(joined, strings.TrimSpace(line))
		}
		for name, value := range labels {
			if name != nameLabel && !strings.Contains(strings.Join(joined, " "), name+`="`+value+`"`) {
				t.Errorf("%d labels: %s is lost in %s", n, name, text)
			}
		}
	}
}

func TestFormatValue(t *testing.T) {
	for want, v := range map[string]float64{
		"0": 0, "315833123": 315833123, "-1234567": -1234567, "9007199254740992": 1 << 53, "18014398509481984": 1 << 54, "1e+21": 1e21, "1.23457e+22": 1.2345678e22,
		"0.00001": 1e-5, "0.0000123457": 1.234567e-5, "0.000001": 1e-6, "1000000": 999999.7, "2.27273": 25.0 / 11, "1234567.25": 1234567.25, "0.0178088": 0.01780876, "1.5e-07": 1.5e-7,
		"NaN": math.NaN(), "+Inf": math.Inf(1), "-Inf": math.Inf(-1),
	} {
		if got := formatValue(v); got != want {
			t.Errorf("formatValue(%v) = %q, want %q", v, got, want)
		}
	}
}
