package telemetry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

var errWrite = errors.New("write failed")

// running runs r in a bubble until the end of the test.
func running(t *testing.T, edit func(*Options)) *Recorder {
	t.Helper()
	r := newRecorder(t, edit)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

// wait lets time pass and all that is due then happen.
func wait(d time.Duration) {
	<-time.NewTimer(d).C
	synctest.Wait()
}

// values lists name and value of the families, without labels, in order.
func values(t *testing.T, r *Recorder, families ...string) string {
	t.Helper()
	var out []string
	for line := range strings.Lines(expose(t, r, FormatText)) {
		line = strings.TrimSuffix(line, "\n")
		name := line[:strings.IndexAny(line, "{ ")]
		for _, f := range families {
			if name == f {
				out = append(out, strings.TrimPrefix(f, "istio_")+line[strings.LastIndexByte(line, ' '):])
			}
		}
	}
	return strings.Join(out, " ")
}

func tcpValues(t *testing.T, r *Recorder) string {
	t.Helper()
	return values(t, r, "istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total",
		"istio_tcp_sent_bytes_total", "istio_tcp_received_bytes_total")
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// TestLongConnection follows a TCP connection from report to report.
func TestLongConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := running(t, nil)
		e := r.Edge(EdgeKey{Direction: mesh.Outbound, Service: catalogueService, Peer: catalogue()})
		c := r.BeginConn(mesh.Outbound, nil)
		c.AddReceived(100)
		wait(5 * time.Second)
		expect(t, "peer unknown", tcpValues(t, r), "")
		c.SetEdge(e)
		wait(4 * time.Second)
		expect(t, "before the tick", tcpValues(t, r), "")
		wait(time.Second)
		expect(t, "opened", tcpValues(t, r), "tcp_connections_opened_total 1 tcp_connections_closed_total 0 tcp_sent_bytes_total 0 tcp_received_bytes_total 100")
		c.AddSent(7)
		c.AddReceived(1)
		expect(t, "between ticks", tcpValues(t, r), "tcp_connections_opened_total 1 tcp_connections_closed_total 0 tcp_sent_bytes_total 0 tcp_received_bytes_total 100")
		wait(5 * time.Second)
		expect(t, "deltas", tcpValues(t, r), "tcp_connections_opened_total 1 tcp_connections_closed_total 0 tcp_sent_bytes_total 7 tcp_received_bytes_total 101")
		wait(5 * time.Second)
		expect(t, "nothing twice", tcpValues(t, r), "tcp_connections_opened_total 1 tcp_connections_closed_total 0 tcp_sent_bytes_total 7 tcp_received_bytes_total 101")
		c.SetEdge(r.Edge(EdgeKey{Direction: mesh.Outbound}))
		c.AddSent(3)
		c.Finish(FlagDC)
		c.Finish(FlagDC)
		expect(t, "closed in the series in which it was opened", tcpValues(t, r), "tcp_connections_opened_total 1 tcp_connections_closed_total 1 tcp_sent_bytes_total 10 tcp_received_bytes_total 101")
		expect(t, "second end", values(t, r, "vitrine_telemetry_double_finish_total", "vitrine_connections_open"),
			"vitrine_connections_open 0 vitrine_connections_open 0 vitrine_telemetry_double_finish_total 1")
	})
}

// TestLiveStream follows the message counters of a gRPC stream.
func TestLiveStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := running(t, nil)
		messages := func() string {
			return values(t, r, "istio_requests_total", "istio_request_messages_total", "istio_response_messages_total")
		}
		rec := r.Begin(mesh.Inbound, 0)
		rec.Edge, rec.Protocol = r.Edge(EdgeKey{Direction: mesh.Inbound}), GRPC
		rec.Live()
		rec.Live()
		rec.AddRequestMessages(1)
		wait(5 * time.Second)
		expect(t, "first tick", messages(), "request_messages_total 1 response_messages_total 0")
		rec.AddResponseMessages(4)
		wait(5 * time.Second)
		expect(t, "second tick", messages(), "request_messages_total 1 response_messages_total 4")
		rec.AddResponseMessages(1)
		rec.Code, rec.GRPCStatus = 200, 0
		rec.Finish()
		expect(t, "end", messages(), "requests_total 1 request_messages_total 1 response_messages_total 5")
		next := r.Begin(mesh.Inbound, 0)
		next.AddRequestMessages(50)
		wait(10 * time.Second)
		expect(t, "the next user of the storage is not live", messages(), "requests_total 1 request_messages_total 1 response_messages_total 5")
		next.Finish()
	})
}

// TestEviction lets series fall silent, forgets them, and has one come back.
func TestEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := running(t, func(o *Options) { o.EvictAfter = time.Minute; o.MaxHosts = 1 })
		k := EdgeKey{Direction: mesh.Outbound, HostFallback: "a.example"}
		held := r.Edge(k) // as callers do
		c := r.BeginConn(mesh.Inbound, r.Edge(EdgeKey{Direction: mesh.Inbound}))
		count := func() string { return values(t, r, "istio_requests_total") }
		created := func() string {
			for line := range strings.Lines(expose(t, r, FormatOpenMetrics)) {
				if strings.HasPrefix(line, "istio_requests_created{") {
					return strings.TrimSpace(line[strings.LastIndexByte(line, ' '):])
				}
			}
			return ""
		}
		start := float64(time.Now().UnixMilli()) / 1000
		at := func(d time.Duration) string { return fmt.Sprintf("%.3f", start+d.Seconds()) }

		request(r, k, 200, 0)
		request(r, k, 200, 0)
		expect(t, "not before the process", created(), at(0))
		wait(40 * time.Second)
		request(r, k, 200, 0)
		wait(60 * time.Second)
		expect(t, "a used series stays", count(), "requests_total 3")
		wait(15 * time.Second)
		expect(t, "a silent one goes", count(), "")
		expect(t, "its time went with it", created(), "")
		expect(t, "build stays", values(t, r, "istio_build"), "build 1")
		expect(t, "a live connection keeps its series", tcpValues(t, r), "tcp_connections_opened_total 1 tcp_connections_closed_total 0 tcp_sent_bytes_total 0 tcp_received_bytes_total 0")

		rec := r.Begin(mesh.Outbound, 0)
		rec.Edge, rec.Code = held, 200
		rec.Finish()
		expect(t, "a held edge counts anew", count(), "requests_total 1")
		// Later than when it was seen to be gone: a scraper has ended it there.
		expect(t, "from a new beginning", created(), at(115*time.Second+time.Millisecond))

		// The edge itself is forgotten once it has no series for as long: its
		// host makes room for another.
		expect(t, "host bound", r.Edge(EdgeKey{Direction: mesh.Outbound, HostFallback: "b.example"}).service, "other")
		wait(3 * time.Minute)
		expect(t, "host free again", r.Edge(EdgeKey{Direction: mesh.Outbound, HostFallback: "b.example"}).service, "b.example")
		// The forgotten edge and a new one with its labels share one series.
		again := r.Edge(EdgeKey{Direction: mesh.Outbound, ServiceName: "x"})
		wait(3 * time.Minute)
		twin := r.Edge(EdgeKey{Direction: mesh.Outbound, ServiceName: "x"})
		if twin == again {
			t.Error("the silent edge was not forgotten")
		}
		for _, e := range []*Edge{again, twin, again, twin} {
			rec := r.Begin(mesh.Outbound, 0)
			rec.Edge, rec.Code = e, 200
			rec.Finish()
		}
		expect(t, "one series for both", count(), "requests_total 4")
		c.Finish(0)
		wait(2 * time.Minute)
		expect(t, "all silent", count()+tcpValues(t, r), "")
	})
}

// TestNoEviction keeps series for ever by default.
func TestNoEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := running(t, nil)
		request(r, EdgeKey{Direction: mesh.Inbound}, 200, 0)
		wait(48 * time.Hour)
		expect(t, "after two days", values(t, r, "istio_requests_total"), "requests_total 1")
	})
}

// TestConfigAge follows the gauges that the control plane connection sets.
func TestConfigAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder(t, nil)
		gauges := func() string {
			return values(t, r, "vitrine_xds_connected", "vitrine_xds_config_version", "vitrine_xds_config_age_seconds")
		}
		expect(t, "at first", gauges(), "vitrine_xds_connected 0 vitrine_xds_config_version 0 vitrine_xds_config_age_seconds 0")
		r.SetConnected(true)
		r.ConfigApplied()
		r.SetConfigVersion(9)
		wait(90 * time.Second)
		expect(t, "later", gauges(), "vitrine_xds_connected 1 vitrine_xds_config_version 9 vitrine_xds_config_age_seconds 90")
	})
}

func TestOptions(t *testing.T) {
	for want, o := range map[string]Options{
		"report interval -1s: must be positive":                                                 {ReportInterval: -time.Second},
		"evict after 1s: must be 0 (never) or at least the report interval, 5s":                 {EvictAfter: time.Second},
		"evict after -1s: must be 0 (never) or at least the report interval, 5s":                {EvictAfter: -time.Second},
		"max hosts -1: must not be negative":                                                    {MaxHosts: -1},
		"access log size -1: must be 1 to 1048576":                                              {AccessLog: AccessLogOptions{Size: -1}},
		"0 histogram buckets: must be 1 to 100":                                                 {Buckets: []float64{}},
		"histogram bucket bounds [1 1]: must ascend":                                            {Buckets: []float64{1, 1}},
		"histogram bucket bound -1: must be 0 to 1e12":                                          {Buckets: []float64{-1}},
		"report interval -1s: must be positive\nhistogram bucket bound +Inf: must be 0 to 1e12": {ReportInterval: -time.Second, Buckets: []float64{1, math.Inf(1)}},
	} {
		_, err := New(o)
		if err == nil || err.Error() != "telemetry options: "+want {
			t.Errorf("%q, want %q", err, want)
		}
	}
}
