package intercept_test

import (
	"context"
	"io"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/intercept"
)

// BenchmarkStart is the time from Start to a ready case.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		c, err := intercept.Start(context.Background(), config(b))
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		_ = c.Close()
		b.StartTimer()
	}
}

// BenchmarkStartWithNewDirectory makes a top-level directory that the host does
// not have, which needs a new root.
func BenchmarkStartWithNewDirectory(b *testing.B) {
	cfg := config(b)
	cfg.Files = []intercept.File{{Path: "/vitrine-test-top/f", Data: []byte("x"), Mode: 0o644}}
	for b.Loop() {
		c, err := intercept.Start(context.Background(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		_ = c.Close()
		b.StartTimer()
	}
}

// BenchmarkDial connects to a program in the case and reads to its end; the extra
// figures are of the Dial alone.
func BenchmarkDial(b *testing.B) {
	c := startCase(b, config(b))
	role(b, c, "serve", "tcp", ":8080").ready(b)
	source := netip.MustParseAddr("10.77.0.9")
	var times []time.Duration
	for b.Loop() {
		began := time.Now()
		conn, err := c.Dial(context.Background(), clientOf(source), 8080)
		if err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(began))
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Nanoseconds()), "ns/dial-median")
	b.ReportMetric(float64(times[len(times)*99/100].Nanoseconds()), "ns/dial-p99")
}

// BenchmarkOutbound is a new connection of a program through redirect, accept and
// original destination, one byte each way.
func BenchmarkOutbound(b *testing.B) {
	c := startCase(b, config(b))
	go func() {
		for {
			conn, err := c.Outbound().Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.CopyN(conn, conn, 1)
				conn.Close()
			}()
		}
	}()
	p := role(b, c, "connects", "192.0.2.1:80").ready(b)
	buf := make([]byte, 1)
	for b.Loop() {
		if _, err := p.stdin.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(p.stdout, buf); err != nil {
			b.Fatal(err)
		}
	}
}
