package telemetry

import (
	"strings"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func shopSelf() mesh.Workload {
	return mesh.Workload{
		Name: "cart-v1-1", Namespace: "shop", Owner: "cart-v1",
		Labels: map[string]string{"app": "cart", "version": "v1"},
	}
}

func newRecorder(tb testing.TB, edit func(*Options)) *Recorder {
	tb.Helper()
	o := Options{Self: shopSelf(), Version: "1.2.3"}
	if edit != nil {
		edit(&o)
	}
	r, err := New(o)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func expose(tb testing.TB, r *Recorder, f Format) string {
	tb.Helper()
	var b strings.Builder
	if err := r.WriteMetrics(&b, f); err != nil {
		tb.Fatal(err)
	}
	return b.String()
}

// TestDoubleFinish ends a Record twice, the second time when its storage
// already serves another request.
func TestDoubleFinish(t *testing.T) {
	r := newRecorder(t, func(o *Options) { o.AccessLog.Size = 1 })
	e := r.Edge(EdgeKey{Direction: mesh.Inbound})
	recs := make([]Record, 50)
	for i := range recs {
		recs[i] = r.Begin(mesh.Inbound, 0)
		recs[i].Edge, recs[i].Code = e, 200
		recs[i].Finish()
		if !recs[i].Done() {
			t.Fatal("finished record is not Done")
		}
	}
	open := r.Begin(mesh.Inbound, 0)
	for _, rec := range recs {
		rec.AddRequestMessages(1)
		rec.AddResponseMessages(1)
		rec.Live()
		rec.Finish()
	}
	Record{}.Finish()
	Record{}.Live()
	Record{}.AddRequestMessages(1)
	if open.requestMessages.Load() != 0 || open.responseMessages.Load() != 0 || open.live {
		t.Error("a stale handle changed another request")
	}
	if open.Done() {
		t.Error("a stale Finish ended another request")
	}
	out := expose(t, r, FormatText)
	for _, want := range []string{
		"vitrine_telemetry_double_finish_total 50\n",
		`vitrine_requests_in_flight{direction="inbound"} 1` + "\n",
		`connection_security_policy="none"} 50` + "\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("exposition lacks %q", want)
		}
	}
	open.Finish()
}
