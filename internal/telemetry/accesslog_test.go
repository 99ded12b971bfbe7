package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// logged finishes a request that has every field of the log.
func logged(r *Recorder) {
	rec := r.Begin(mesh.Outbound, Now())
	rec.SetRequest([]byte("GET"), []byte("/a?b=\"c\"\n"), []byte("catalogue:80"), []byte("curl/8"))
	rec.SetRequestID([]byte("3f0e"))
	rec.SetForwardedFor([]byte("10.77.0.9"))
	rec.Edge = r.Edge(EdgeKey{Direction: mesh.Outbound, Peer: catalogue(), Service: catalogueService})
	rec.Version, rec.Code, rec.Flags, rec.Detail = "HTTP/1.1", 503, FlagURX|FlagUF, "upstream_reset_before_response_started"
	rec.FailureReason = "connection refused"
	rec.BytesReceived, rec.BytesSent = 100, 200
	rec.UpstreamWait, rec.End = 3*time.Millisecond, rec.Start+int64(4500*time.Microsecond)
	rec.Route, rec.Cluster, rec.SNI = "default", "outbound|80||catalogue.shop.svc.cluster.local", "sni.example"
	rec.Upstream, rec.UpstreamLocal = netip.MustParseAddrPort("127.77.0.7:15100"), netip.MustParseAddrPort("127.77.0.5:40000")
	rec.Downstream, rec.DownstreamLocal = netip.MustParseAddrPort("10.77.0.5:50000"), netip.MustParseAddrPort("[2001:2::1]:80")
	rec.Finish()
}

func TestAccessLogLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		r := newRecorder(t, func(o *Options) { o.AccessLog = AccessLogOptions{Size: 8, Writer: &out} })
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		logged(r)
		r.Begin(mesh.Inbound, 0).Finish()
		wait(time.Second)
		if lines := strings.Count(out.String(), "\n"); lines != 2 {
			t.Errorf("%d lines after a second", lines)
		}
		c := r.BeginConn(mesh.Outbound, nil)
		c.SNI, c.Upstream = "db.example", netip.MustParseAddrPort("1.2.3.4:5432")
		c.AddReceived(5)
		wait(1500 * time.Millisecond)
		c.Finish(FlagUF)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		golden(t, "access.log", out.String())
		for line := range strings.Lines(out.String()) {
			var m map[string]any
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			if len(m) != 24 {
				t.Errorf("%d keys, want the 24 of Istio", len(m))
			}
		}
	})
}

func TestAccessLogRing(t *testing.T) {
	r := newRecorder(t, func(o *Options) { o.AccessLog.Size = 5 }) // rounded up to 8
	if got := r.AccessLog(10); len(got) != 0 {
		t.Errorf("%d entries at first", len(got))
	}
	for code := range 20 {
		request(r, EdgeKey{Direction: mesh.Inbound}, 200+code, 0)
	}
	codes := func(n int) (out []int) {
		for _, e := range r.AccessLog(n) {
			out = append(out, e.Code)
		}
		return out
	}
	if got, want := codes(100), []int{212, 213, 214, 215, 216, 217, 218, 219}; !slices.Equal(got, want) {
		t.Errorf("all: %v, want %v", got, want)
	}
	if got, want := codes(2), []int{218, 219}; !slices.Equal(got, want) {
		t.Errorf("last two: %v, want %v", got, want)
	}
	if got := codes(-1); got != nil {
		t.Errorf("a negative number: %v", got)
	}
}

func TestAccessLogEntry(t *testing.T) {
	r := newRecorder(t, nil)
	before := time.Now()
	logged(r)
	got := r.AccessLog(1)
	want := []Entry{{
		Direction: mesh.Outbound, Method: "GET", Path: "/a?b=\"c\"\n", Authority: "catalogue:80", UserAgent: "curl/8",
		RequestID: "3f0e", ForwardedFor: "10.77.0.9", Version: "HTTP/1.1", Code: 503, GRPCStatus: -1,
		Flags: FlagURX | FlagUF, Detail: "upstream_reset_before_response_started", FailureReason: "connection refused",
		BytesReceived: 100, BytesSent: 200, Duration: 4500 * time.Microsecond, UpstreamWait: 3 * time.Millisecond,
		Upstream: netip.MustParseAddrPort("127.77.0.7:15100"), UpstreamLocal: netip.MustParseAddrPort("127.77.0.5:40000"),
		Downstream: netip.MustParseAddrPort("10.77.0.5:50000"), DownstreamLocal: netip.MustParseAddrPort("[2001:2::1]:80"),
		Service: catalogueService.Host, Cluster: "outbound|80||catalogue.shop.svc.cluster.local", Route: "default", SNI: "sni.example",
	}}
	addr := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	if diff := cmp.Diff(want, got, addr, cmpopts.IgnoreFields(Entry{}, "Time")); diff != "" {
		t.Errorf("entry differs (-want +got):\n%s", diff)
	}
	if len(got) == 1 && (got[0].Time.Before(before.Add(-time.Millisecond)) || got[0].Time.After(time.Now())) {
		t.Errorf("time %v, began after %v", got[0].Time, before)
	}
}

func TestLogTextIsCut(t *testing.T) {
	r := newRecorder(t, nil)
	rec := r.Begin(mesh.Inbound, 0)
	long := bytes.Repeat([]byte("x"), 1000)
	rec.SetRequest(long, long, long, long)
	rec.SetRequestID(long)
	rec.SetForwardedFor(long)
	rec.Finish()
	rec = r.Begin(mesh.Inbound, 0)
	rec.SetRequest([]byte("PUT"), nil, nil, []byte("ua"))
	rec.Finish()
	e := r.AccessLog(2)
	lengths := []int{len(e[0].Method), len(e[0].Path), len(e[0].Authority), len(e[0].UserAgent), len(e[0].RequestID), len(e[0].ForwardedFor)}
	if want := []int{16, 192, 64, 80, 64, 64}; !slices.Equal(lengths, want) {
		t.Errorf("lengths %v, want %v", lengths, want)
	}
	if got := []string{e[1].Method, e[1].Path, e[1].Authority, e[1].UserAgent, e[1].RequestID}; !slices.Equal(got, []string{"PUT", "", "", "ua", ""}) {
		t.Errorf("absent fields: %q", got)
	}
}

// TestAccessLogDrops has a writer that fails, and then more entries than are
// kept: what is lost is counted, and traffic does not wait.
func TestAccessLogDrops(t *testing.T) {
	var out bytes.Buffer
	r := newRecorder(t, func(o *Options) { o.AccessLog = AccessLogOptions{Size: 4, Writer: &out} })
	state := func() string {
		return values(t, r, "vitrine_access_log_entries_total", "vitrine_access_log_dropped_total")
	}
	request(r, EdgeKey{Direction: mesh.Inbound}, 200, 0)
	if err := r.log.drain(&failingWriter{}, false); !errors.Is(err, errWrite) {
		t.Errorf("drain: %v, want %v", err, errWrite)
	}
	expect(t, "failing writer", state(), "vitrine_access_log_entries_total 0 vitrine_access_log_dropped_total 1")
	for range 10 {
		request(r, EdgeKey{Direction: mesh.Inbound}, 200, 0)
	}
	if err := r.log.drain(&out, true); err != nil {
		t.Error(err)
	}
	expect(t, "overrun", state(), "vitrine_access_log_entries_total 4 vitrine_access_log_dropped_total 7")
	if err := r.log.drain(&out, true); err != nil || strings.Count(out.String(), "\n") != 4 {
		t.Errorf("%v, %d lines, want 4", err, strings.Count(out.String(), "\n"))
	}
}
