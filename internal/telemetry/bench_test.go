package telemetry

import (
	"fmt"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// one accounts for one ordinary request as the HTTP/1 path does.
func one(r *Recorder, e *Edge, start, end int64) {
	rec := r.Begin(mesh.Inbound, start)
	rec.SetRequest(benchMethod, benchPath, benchHost, benchAgent)
	rec.Edge = e
	rec.Code = 200
	rec.BytesReceived, rec.BytesSent = 180, 1200
	rec.UpstreamWait = 300 * time.Microsecond
	rec.Detail = "via_upstream"
	rec.End = end
	rec.Finish()
}

var (
	benchMethod = []byte("GET")
	benchPath   = []byte("/products/42?currency=EUR")
	benchHost   = []byte("catalogue.shop.svc.cluster.local")
	benchAgent  = []byte("python-requests/2.32.3")
)

// BenchmarkFinish is the cost of Finish alone: series lookup, counter, three
// histograms, in-flight gauge, log ring.
func BenchmarkFinish(b *testing.B) {
	r := newRecorder(b, nil)
	e := r.Edge(EdgeKey{Direction: mesh.Inbound})
	b.ReportAllocs()
	for b.Loop() {
		rec := r.Begin(mesh.Inbound, 1)
		rec.Edge, rec.Code, rec.End = e, 200, 2_000_000
		rec.BytesReceived, rec.BytesSent = 180, 1200
		rec.Finish()
	}
}

// BenchmarkRequest is the whole account of a request, with the two clock
// readings and the strings for the log.
func BenchmarkRequest(b *testing.B) {
	r := newRecorder(b, nil)
	e := r.Edge(EdgeKey{Direction: mesh.Inbound})
	b.ReportAllocs()
	for b.Loop() {
		one(r, e, 0, 0)
	}
}

func BenchmarkNow(b *testing.B) {
	for b.Loop() {
		Now()
	}
}

// BenchmarkScrape is one scrape of 100 edges with two status codes each.
func BenchmarkScrape(b *testing.B) {
	r := newRecorder(b, nil)
	for i := range 100 {
		e := r.Edge(EdgeKey{Direction: mesh.Outbound, Service: mesh.ServiceRef{Host: fmt.Sprintf("s%d.shop.svc.cluster.local", i), Name: fmt.Sprintf("s%d", i), Namespace: "shop"}})
		for _, code := range []int{200, 503} {
			rec := r.Begin(mesh.Outbound, 0)
			rec.Edge, rec.Code = e, code
			rec.Finish()
		}
	}
	var n countWriter
	b.ReportAllocs()
	for b.Loop() {
		n = 0
		if err := r.WriteMetrics(&n, FormatOpenMetrics); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n), "bytes")
}

type countWriter int

func (c *countWriter) Write(p []byte) (int, error) {
	*c += countWriter(len(p))
	return len(p), nil
}

// BenchmarkRequestParallel has all threads count on one edge: the worst case
// for the caches.
func BenchmarkRequestParallel(b *testing.B) {
	r := newRecorder(b, nil)
	e := r.Edge(EdgeKey{Direction: mesh.Inbound})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			one(r, e, 0, 0)
		}
	})
}

// BenchmarkEdge is the slow path: labels rendered, lock taken.
func BenchmarkEdge(b *testing.B) {
	r := newRecorder(b, nil)
	k := EdgeKey{Direction: mesh.Outbound, Peer: catalogue(), Service: catalogueService}
	b.ReportAllocs()
	for b.Loop() {
		r.Edge(k)
	}
}
