package telemetry

import (
	"context"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// sample is one line of an exposition.
type sample struct {
	name, labels string
	value        float64
}

func samples(t *testing.T, text string) []sample {
	t.Helper()
	var out []sample
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		line = strings.TrimSuffix(line, "\n")
		at := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		name, labels, _ := strings.Cut(line[:at], "{")
		out = append(out, sample{name, labels, v})
	}
	return out
}

// checkScrape wants an exposition that is consistent in itself: no series
// twice, buckets that do not fall, counts that are the last bucket.
func checkScrape(t *testing.T, text string) {
	t.Helper()
	seen := map[string]bool{}
	last := 0.0
	inf := ""
	for _, s := range samples(t, text) {
		if seen[s.name+"{"+s.labels] {
			t.Fatalf("series twice: %s{%s", s.name, s.labels)
		}
		seen[s.name+"{"+s.labels] = true
		switch {
		case strings.HasSuffix(s.name, "_bucket"):
			if inf == "end" {
				last = 0
			}
			if s.value < last {
				t.Fatalf("bucket falls from %v: %v", last, s)
			}
			last, inf = s.value, ""
			if strings.HasSuffix(s.labels, `le="+Inf"}`) {
				inf = "end"
			}
		case strings.HasSuffix(s.name, "_count") && inf == "end":
			if s.value != last {
				t.Fatalf("count is not the last bucket %v: %v", last, s)
			}
		}
	}
}

// total sums a family.
func total(t *testing.T, text, family string) uint64 {
	t.Helper()
	sum := 0.0
	for _, s := range samples(t, text) {
		if s.name == family {
			sum += s.value
		}
	}
	if sum != math.Trunc(sum) {
		t.Fatalf("%s adds up to %v", family, sum)
	}
	return uint64(sum)
}

// TestEveryFinishIsCounted has many goroutines finish requests, streams and
// connections of random kind while others scrape, read the log and report. In
// the end every family adds up to what was done.
func TestEveryFinishIsCounted(t *testing.T) {
	const workers, each = 8, 1500
	r := newRecorder(t, func(o *Options) {
		o.ReportInterval = time.Millisecond
		o.MaxHosts = 3
		o.AccessLog = AccessLogOptions{Size: 64, Writer: io.Discard}
	})
	ctx, cancel := context.WithCancel(context.Background())
	var background, load sync.WaitGroup
	background.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	for range 2 {
		background.Go(func() {
			for ctx.Err() == nil {
				checkScrape(t, expose(t, r, FormatText))
				r.AccessLog(10)
			}
		})
	}
	var want struct{ requests, connections, messages, bytes, twice, nanos atomic.Uint64 }
	for w := range workers {
		load.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 7))
			hosts := []string{"", "a", "b", "c", "d", "e"}
			for range each {
				d := mesh.Direction(rng.IntN(2))
				k := EdgeKey{Direction: d, HostFallback: hosts[rng.IntN(len(hosts))]}
				if rng.IntN(2) == 0 {
					k.Peer = catalogue()
				}
				if rng.IntN(3) == 0 {
					c := r.BeginConn(d, nil)
					c.AddReceived(3)
					c.SetEdge(r.Edge(k))
					c.AddSent(5)
					c.Finish(Flags(rng.IntN(4)))
					want.connections.Add(1)
					want.bytes.Add(8)
					continue
				}
				rec := r.Begin(d, 0)
				rec.Edge = r.Edge(k)
				rec.Code = []int{0, 200, 404, 503}[rng.IntN(4)]
				rec.BytesReceived, rec.BytesSent = 10, 20
				if rng.IntN(2) == 0 {
					rec.Protocol = GRPC
					rec.GRPCStatus = rng.IntN(17)
					rec.Live()
					rec.AddRequestMessages(2)
					rec.AddResponseMessages(1)
					want.messages.Add(3)
				}
				nanos := uint64(rng.IntN(1e9))
				rec.End = rec.Start + int64(nanos)
				rec.Finish()
				want.requests.Add(1)
				want.bytes.Add(30)
				want.nanos.Add(nanos)
				if rng.IntN(10) == 0 {
					rec.Finish()
					want.twice.Add(1)
				}
			}
		})
	}
	load.Wait()
	cancel()
	background.Wait()

	text := expose(t, r, FormatText)
	checkScrape(t, text)
	for _, c := range []struct {
		what      string
		want, got uint64
	}{
		{"requests", want.requests.Load(), total(t, text, "istio_requests_total")},
		{"durations", want.requests.Load(), total(t, text, "istio_request_duration_milliseconds_count")},
		{"request sizes", want.requests.Load(), total(t, text, "istio_request_bytes_count")},
		{"response sizes", want.requests.Load(), total(t, text, "istio_response_bytes_count")},
		{"opened", want.connections.Load(), total(t, text, "istio_tcp_connections_opened_total")},
		{"closed", want.connections.Load(), total(t, text, "istio_tcp_connections_closed_total")},
		{"bytes", want.bytes.Load(), total(t, text, "istio_request_bytes_sum") + total(t, text, "istio_response_bytes_sum") +
			total(t, text, "istio_tcp_sent_bytes_total") + total(t, text, "istio_tcp_received_bytes_total")},
		{"messages", want.messages.Load(), total(t, text, "istio_request_messages_total") + total(t, text, "istio_response_messages_total")},
		{"second ends", want.twice.Load(), total(t, text, "vitrine_telemetry_double_finish_total")},
		{"in flight", 0, total(t, text, "vitrine_requests_in_flight") + total(t, text, "vitrine_connections_open")},
		{"log", want.requests.Load() + want.connections.Load(), total(t, text, "vitrine_access_log_entries_total") + total(t, text, "vitrine_access_log_dropped_total")},
	} {
		if c.want != c.got {
			t.Errorf("%s: counted %d, want %d", c.what, c.got, c.want)
		}
	}
	// Durations are kept whole: the sums add up to the nanosecond.
	var nanos uint64
	for _, e := range r.edges {
		for _, s := range *e.requests.Load() {
			nanos += s.sums[histDuration].Load()
		}
	}
	if nanos != want.nanos.Load() {
		t.Errorf("durations add up to %d ns, want %d", nanos, want.nanos.Load())
	}
}

// TestNothingIsLostToEviction has one goroutine retire series as fast as it can
// while others count: what the retired and the living series hold adds up.
func TestNothingIsLostToEviction(t *testing.T) {
	const workers, each = 4, 20000
	r := newRecorder(t, nil)
	e := r.Edge(EdgeKey{Direction: mesh.Inbound})
	var load, evictor sync.WaitGroup
	var lost uint64
	stop := make(chan struct{})
	evictor.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			r.mu.Lock()
			drop(&e.requests, func(s *requestSeries) bool {
				// What the sweep does, without the wait for silence.
				n := s.n.Load()
				if !s.n.CompareAndSwap(n, n|retired) {
					return false
				}
				lost += n
				return true
			})
			r.mu.Unlock()
		}
	})
	for range workers {
		load.Go(func() {
			for i := range each {
				rec := r.Begin(mesh.Inbound, 1)
				rec.Edge, rec.Code, rec.End = e, 200, 2
				rec.Finish()
				if i%64 == 0 {
					runtime.Gosched() // the evictor too, on one thread
				}
			}
		})
	}
	load.Wait()
	close(stop)
	evictor.Wait()
	living := total(t, expose(t, r, FormatText), "istio_requests_total")
	if lost+living != workers*each {
		t.Errorf("evicted %d and living %d make %d, want %d", lost, living, lost+living, workers*each)
	}
	if lost == 0 {
		t.Error("nothing was evicted: the test did not test")
	}
}
