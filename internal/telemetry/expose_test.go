package telemetry

import (
	"bytes"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// everything makes a recorder in which every family has samples.
func everything(t *testing.T) *Recorder {
	t.Helper()
	r := newRecorder(t, nil)
	k := EdgeKey{Direction: mesh.Outbound, Peer: catalogue(), Service: catalogueService}
	for _, ms := range []float64{0, 0.5, 0.500001, 3, 1e7} {
		rec := r.Begin(mesh.Outbound, 1)
		rec.Edge, rec.Code, rec.End = r.Edge(k), 200, 1+int64(ms*1e6)
		rec.BytesReceived, rec.BytesSent = 0, 1001
		rec.UpstreamWait = time.Millisecond
		rec.Finish()
	}
	request(r, EdgeKey{Direction: mesh.Outbound, HostFallback: "a\"b\\c\nd"}, 404, FlagNR)
	grpcRequest(r, k, 200, 0, 0)
	connection(r, k, 0)
	r.Rejected("smuggling")
	r.Rejected("smuggling")
	r.Detected("http1", 0.00025)
	r.Retried("stale_connection")
	r.DNSAnswered("noerror")
	r.ForcedClose()
	r.ConnectionRefused()
	r.SetConnected(true)
	r.SetReady(true)
	r.ConfigApplied()
	r.SetConfigVersion(7)
	r.ConfigRejected()
	return r
}

// own leaves out the families whose values belong to the process.
func own(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE ")
		if !strings.HasPrefix(name, "process_") && !strings.HasPrefix(name, "go_") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func TestGoldenExposition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := everything(t)
		golden(t, "metrics.txt", own(expose(t, r, FormatText)))
		golden(t, "metrics.openmetrics", own(expose(t, r, FormatOpenMetrics)))
	})
}

// TestFormatsAgree reads our text format with Prometheus's parser and has its
// encoder write the same as OpenMetrics: it must be what we write.
func TestFormatsAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := everything(t)
		parser := expfmt.NewTextParser(model.LegacyValidation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(own(expose(t, r, FormatText))))
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		for _, name := range slices.Sorted(mapKeys(families)) {
			if _, err := expfmt.MetricFamilyToOpenMetrics(&want, families[name]); err != nil {
				t.Fatal(err)
			}
		}
		var samples []string
		for line := range strings.Lines(own(expose(t, r, FormatOpenMetrics))) {
			if !strings.Contains(line, "_created") && line != "# EOF\n" {
				samples = append(samples, canonical(line))
			}
		}
		var wantSamples []string
		for line := range strings.Lines(want.String()) {
			wantSamples = append(wantSamples, canonical(line))
		}
		slices.Sort(samples)
		slices.Sort(wantSamples)
		if diff := cmp.Diff(wantSamples, samples); diff != "" {
			t.Errorf("OpenMetrics differs from that of Prometheus's encoder (-want +got):\n%s", diff)
		}
	})
}

// canonical forgives the two spellings of a whole number as value.
func canonical(line string) string {
	line = strings.TrimSuffix(line, "\n")
	if !strings.HasPrefix(line, "#") {
		line = strings.TrimSuffix(line, ".0")
	}
	return line
}

func mapKeys(m map[string]*dto.MetricFamily) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// TestCreatedFollowsSample wants a creation time for every counter and
// histogram of OpenMetrics, right behind its samples and with their labels.
func TestCreatedFollowsSample(t *testing.T) {
	lines := strings.Split(expose(t, everything(t), FormatOpenMetrics), "\n")
	if lines[len(lines)-2] != "# EOF" || lines[len(lines)-1] != "" {
		t.Errorf("ends with %q", lines[len(lines)-2:])
	}
	kind, family, missing := "", "", 0
	for i, line := range lines {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			family, kind, _ = strings.Cut(rest, " ")
			continue
		}
		series, _, _ := strings.Cut(line, "} ")
		_, labels, _ := strings.Cut(series, "{")
		last := kind == counterKind && strings.HasPrefix(line, family+"_total") ||
			kind == histogramKind && strings.HasPrefix(line, family+"_count")
		if !last || strings.HasPrefix(family, "go_") {
			continue
		}
		want := family + "_created"
		if labels != "" && strings.Contains(line, "{") {
			want += "{" + labels + "} "
		}
		if !strings.HasPrefix(lines[i+1], want) {
			missing++
			t.Errorf("after %q comes %q", line, lines[i+1])
		}
	}
	if missing == 0 && !strings.Contains(strings.Join(lines, "\n"), "istio_requests_created{") {
		t.Error("nothing was checked")
	}
}

func TestNegotiation(t *testing.T) {
	const om, text = FormatOpenMetrics, FormatText
	for accept, want := range map[string]Format{
		"":                             text,
		"*/*":                          text,
		"text/html":                    text,
		"application/openmetrics-text": om,
		"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2": om,
		"text/plain;version=0.0.4;q=0.9, application/openmetrics-text;version=1.0.0;q=0.5":                           text,
		"application/openmetrics-text; version=\"1.0.0\"":                                                            om,
		"application/openmetrics-text;version=2.0.0":                                                                 text,
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;q=0.9,application/openmetrics-text": om,
		"APPLICATION/OPENMETRICS-TEXT;Q=0.1":                                                                         om,
		"application/openmetrics-text;q=0":                                                                           text,
		",,;;=,q=,application/openmetrics-text;q=x":                                                                  om,
	} {
		if got := negotiate([]string{accept}); got != want {
			t.Errorf("Accept %q: format %d, want %d", accept, got, want)
		}
	}
}

func FuzzNegotiate(f *testing.F) {
	f.Add("application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1")
	f.Add(";=,,q=;\x00")
	f.Fuzz(func(t *testing.T, accept string) {
		got := negotiate([]string{accept})
		if got == FormatOpenMetrics && !strings.Contains(strings.ToLower(accept), "application/openmetrics-text") {
			t.Errorf("Accept %q: OpenMetrics was not asked for", accept)
		}
	})
}

func TestHandler(t *testing.T) {
	r := everything(t)
	for _, tc := range []struct {
		method, accept, contentType string
		code                        int
		body                        string // the end of it
	}{
		{"GET", "", "text/plain; version=0.0.4; charset=utf-8", 200, "\n"},
		{"GET", "application/openmetrics-text", "application/openmetrics-text; version=1.0.0; charset=utf-8", 200, "# EOF\n"},
		{"HEAD", "application/openmetrics-text", "application/openmetrics-text; version=1.0.0; charset=utf-8", 200, ""},
		{"POST", "", "text/plain; charset=utf-8", 405, "metrics are read with GET\n"},
	} {
		req := httptest.NewRequest(tc.method, "/stats/prometheus", nil)
		req.Header.Set("Accept", tc.accept)
		w := httptest.NewRecorder()
		r.Handler().ServeHTTP(w, req)
		if w.Code != tc.code || w.Header().Get("Content-Type") != tc.contentType {
			t.Errorf("%s %q: %d %q", tc.method, tc.accept, w.Code, w.Header().Get("Content-Type"))
		}
		if body := w.Body.String(); !strings.HasSuffix(body, tc.body) || tc.body == "" && body != "" {
			t.Errorf("%s %q: body ends with %q", tc.method, tc.accept, body[max(0, len(body)-80):])
		}
	}
}

// TestProcessMetrics holds what the process says of itself against plain facts.
func TestProcessMetrics(t *testing.T) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(expose(t, newRecorder(t, nil), FormatText)))
	if err != nil {
		t.Fatal(err)
	}
	value := func(name string) float64 {
		m := families[name].GetMetric()
		if len(m) != 1 {
			t.Fatalf("%s: %d samples", name, len(m))
		}
		return m[0].GetGauge().GetValue() + m[0].GetCounter().GetValue()
	}
	now := float64(time.Now().Unix())
	if s := value("process_start_time_seconds"); s > now+2 || s < now-3600 {
		t.Errorf("process started at %v, now is %v", s, now)
	}
	for name, bounds := range map[string][2]float64{
		"process_cpu_seconds_total": {0.001, 3600}, "process_resident_memory_bytes": {1 << 20, 1 << 34},
		"process_virtual_memory_bytes": {1 << 20, 1 << 50}, "process_open_fds": {3, 1000}, "process_max_fds": {16, 1e19},
		"go_goroutines": {1, 1000}, "go_memstats_sys_bytes": {1 << 20, 1 << 34}, "go_sched_gomaxprocs_threads": {1, 4096},
	} {
		if v := value(name); v < bounds[0] || v > bounds[1] {
			t.Errorf("%s is %v, want %v", name, v, bounds)
		}
	}
}

type failingWriter struct{ after int }

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.after -= len(p); w.after < 0 {
		return 0, errWrite
	}
	return len(p), nil
}

func TestWriteError(t *testing.T) {
	if err := everything(t).WriteMetrics(&failingWriter{}, FormatText); err == nil {
		t.Error("a failing writer is not reported")
	}
}
