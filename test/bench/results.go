package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// Kinds of load, in the order of the table.
const (
	loadC64 = iota
	loadC16
	loadEven
	loadTicks
	loadKinds
)

// results gathers the figures of a run, per proxy in the order of proxies.
type results struct {
	s       settings
	proxies []*proc
	direct  [][3]float64 // µs at p50, p90, p99 without a proxy, per round
	rows    []row
}

// row is one proxy's line; the report's JSON.
type row struct {
	Name           string     `json:"name"`
	CPUMicrosC64   float64    `json:"cpuMicrosC64"`
	CPUMicrosC16   float64    `json:"cpuMicrosC16"`
	CPUMicrosEven  float64    `json:"cpuMicros1000rpsEven"`  // requests at even distances
	CPUMicrosTicks float64    `json:"cpuMicros1000rpsTicks"` // 16 requests in the same moment
	UserC64        float64    `json:"userShareC64"`          // of the CPU time
	UserC16        float64    `json:"userShareC16"`
	UserEven       float64    `json:"userShare1000rpsEven"`
	RequestsPerSec float64    `json:"requestsPerSecondC64"`
	AddedMicros    [3]float64 `json:"addedMicrosP50P90P99"`
	IdleMiB        float64    `json:"idlePSSMiB"`
	MiB64          float64    `json:"pss64ConnsMiB"`
	MiB1000        float64    `json:"pss1000ConnsMiB"`
	Syscalls       float64    `json:"syscallsPerRequest"`
	Allocs         *float64   `json:"allocsPerRequest,omitempty"`
	RatioC64       float64    `json:"vitrineRatioC64"` // ours divided by this one
	RatioC16       float64    `json:"vitrineRatioC16"`
	RatioEven      float64    `json:"vitrineRatio1000rpsEven"`
	RatioTicks     float64    `json:"vitrineRatio1000rpsTicks"`

	allRounds      [loadKinds][]float64  // CPU µs per request, per round
	ticks          [loadKinds][2]float64 // clock ticks, user mode and all, over all rounds
	allRoundsAdded [][3]float64
}

// report is the whole outcome.
type report struct {
	Rounds         int        `json:"rounds"`
	Time           time.Time  `json:"time"`
	DirectMicros   [3]float64 `json:"directMicrosP50P90P99"`
	TelemetryNanos float64    `json:"telemetryNanosPerRequest"`
	TelemetryShare float64    `json:"telemetryShareC64"`
	SidecarIdleMiB float64    `json:"sidecarIdlePSSMiB,omitempty"` // the whole vitrine-proxy: control plane, 100 services
	Rows           []row      `json:"proxies"`
}

func newResults(s settings, proxies []*proc) *results {
	r := &results{s: s, proxies: proxies, rows: make([]row, len(proxies))}
	for i, p := range proxies {
		r.rows[i].Name = p.name
	}
	return r
}

// idleMemory is taken first, before any load.
func (r *results) idleMemory(_ context.Context) error {
	time.Sleep(2 * time.Second) // what a server still does after its start is not idle; nothing tells its end
	for i, p := range r.proxies {
		mib, err := pssMiB(p.pid())
		if err != nil {
			return err
		}
		r.rows[i].IdleMiB = mib
	}
	return nil
}

// round gives each proxy each kind of load, in an order that turns with the
// round, so that drift of the machine hits all alike.
func (r *results) round(ctx context.Context, n int) error {
	for kind := range loadKinds {
		for i := range r.proxies {
			at := (i + n) % len(r.proxies)
			if err := r.burst(ctx, kind, at); err != nil {
				return err
			}
		}
	}
	direct, err := atRate(ctx, originAddr, 1000, 16, r.s.burst)
	if err != nil {
		return err
	}
	d := [3]float64(direct.Micros)
	r.direct = append(r.direct, d)
	for i := range r.rows {
		last := &r.rows[i].allRoundsAdded[n]
		for q := range last {
			last[q] -= d[q]
		}
	}
	return nil
}

func (r *results) burst(ctx context.Context, kind, at int) error {
	p := r.proxies[at]
	userBefore, allBefore, err := cpuTicks(p.pid())
	if err != nil {
		return err
	}
	before, err := cpuNanos(p.pid())
	if err != nil {
		return err
	}
	began := time.Now()
	var load loadResult
	switch kind {
	case loadC64:
		load, err = atMax(ctx, p.addr, 64, r.s.burst)
	case loadC16:
		load, err = atMax(ctx, p.addr, 16, r.s.burst)
	case loadEven:
		load, err = atRate(ctx, p.addr, 1000, 16, r.s.burst)
	case loadTicks:
		load, err = inTicks(ctx, p.addr, 1000, 16, r.s.burst)
	}
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, err := cpuNanos(p.pid())
	if err != nil {
		return err
	}
	user, all, err := cpuTicks(p.pid())
	if err != nil {
		return err
	}
	row := &r.rows[at]
	row.ticks[kind][0] += user - userBefore
	row.ticks[kind][1] += all - allBefore
	row.allRounds[kind] = append(row.allRounds[kind], float64(after-before)/1000/float64(load.Requests))
	switch kind {
	case loadC64:
		row.RequestsPerSec = math.Max(row.RequestsPerSec, float64(load.Requests)/took.Seconds())
	case loadEven:
		row.allRoundsAdded = append(row.allRoundsAdded, [3]float64(load.Micros))
	}
	return nil
}

// once takes what needs no rounds.
func (r *results) once(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "vitrine-strace-")
	if err != nil {
		return fmt.Errorf("make work directory: %w", err)
	}
	defer os.RemoveAll(dir)
	for i, p := range r.proxies {
		row := &r.rows[i]
		if row.MiB64, err = held(ctx, p, 64); err != nil {
			return err
		}
		if row.MiB1000, err = held(ctx, p, 1000); err != nil {
			return err
		}
		if row.Syscalls, err = syscallsPerRequest(ctx, p, dir); err != nil {
			return err
		}
		if p.name == "vitrine" {
			allocs, err := allocsPerRequest(ctx, p)
			if err != nil {
				return err
			}
			row.Allocs = &allocs
		}
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	switch n := len(v); {
	case n == 0:
		return math.NaN()
	case n%2 == 1:
		return v[n/2]
	default:
		return (v[n/2-1] + v[n/2]) / 2
	}
}

// column is one quantile of every round.
func column(rounds [][3]float64, q int) []float64 {
	out := make([]float64, len(rounds))
	for i := range rounds {
		out[i] = rounds[i][q]
	}
	return out
}

func (r *results) report() report {
	rep := report{Rounds: r.s.rounds, Time: time.Now().UTC().Truncate(time.Second), Rows: r.rows}
	for q := range 3 {
		rep.DirectMicros[q] = median(column(r.direct, q))
	}
	for i := range rep.Rows {
		row := &rep.Rows[i]
		row.CPUMicrosC64 = median(row.allRounds[loadC64])
		row.CPUMicrosC16 = median(row.allRounds[loadC16])
		row.CPUMicrosEven = median(row.allRounds[loadEven])
		row.CPUMicrosTicks = median(row.allRounds[loadTicks])
		row.UserC64 = row.ticks[loadC64][0] / row.ticks[loadC64][1]
		row.UserC16 = row.ticks[loadC16][0] / row.ticks[loadC16][1]
		row.UserEven = row.ticks[loadEven][0] / row.ticks[loadEven][1]
		for q := range 3 {
			row.AddedMicros[q] = median(column(row.allRoundsAdded, q))
		}
	}
	ours := rep.Rows[0]
	for i := range rep.Rows {
		row := &rep.Rows[i]
		row.RatioC64 = ours.CPUMicrosC64 / row.CPUMicrosC64
		row.RatioC16 = ours.CPUMicrosC16 / row.CPUMicrosC16
		row.RatioEven = ours.CPUMicrosEven / row.CPUMicrosEven
		row.RatioTicks = ours.CPUMicrosTicks / row.CPUMicrosTicks
	}
	return rep
}

// write prints two tables: what a request costs, and the rest.
func (rep report) write(out io.Writer) error {
	fmt.Fprintf(out, "One proxy hop, HTTP/1.1 keep-alive, 1 KiB; medians of %d interleaved rounds; one core for the proxy.\n", rep.Rounds)
	fmt.Fprintln(out, "vitrine with all telemetry, peers with none. 64 and 16 connections as fast as they go; 1,000 requests/s at even")
	fmt.Fprintln(out, "distances (each wakes an idle proxy) and in ticks of 16 at once. user is the share of CPU time outside the kernel.")
	fmt.Fprint(out, "bytecopy is no proxy but the floor: two sockets, one thread, no look at the bytes.\n\n")
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "proxy\tCPU µs/req c64\tc16\teven\tticks\tuser c64\tc16\teven\tvitrine÷it c64\tc16\teven\tticks\tmax req/s\t")
	for i := range rep.Rows {
		r := &rep.Rows[i]
		fmt.Fprintf(tw, "%s\t%.1f\t%.1f\t%.1f\t%.1f\t%.0f%%\t%.0f%%\t%.0f%%\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f\t\n", r.Name,
			r.CPUMicrosC64, r.CPUMicrosC16, r.CPUMicrosEven, r.CPUMicrosTicks, 100*r.UserC64, 100*r.UserC16, 100*r.UserEven,
			r.RatioC64, r.RatioC16, r.RatioEven, r.RatioTicks, r.RequestsPerSec)
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	fmt.Fprintf(out, "\nAdded latency at 1,000/s evenly (direct p50/p90/p99: %.0f/%.0f/%.0f µs); memory as PSS.\n\n", rep.DirectMicros[0], rep.DirectMicros[1], rep.DirectMicros[2])
	fmt.Fprintln(tw, "proxy\tadded µs p50\tp90\tp99\tMiB idle\t64 conns\t1000 conns\tsyscalls/req\tallocs/req\t")
	for i := range rep.Rows {
		r := &rep.Rows[i]
		allocs := "-"
		if r.Allocs != nil {
			allocs = fmt.Sprintf("%.3f", *r.Allocs)
		}
		fmt.Fprintf(tw, "%s\t%+.0f\t%+.0f\t%+.0f\t%.1f\t%.1f\t%.1f\t%.2f\t%s\t\n", r.Name,
			r.AddedMicros[0], r.AddedMicros[1], r.AddedMicros[2], r.IdleMiB, r.MiB64, r.MiB1000, r.Syscalls, allocs)
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	fmt.Fprintf(out, "\ntelemetry: %.0f ns per request, %.1f %% of the hop at c64\n", rep.TelemetryNanos, 100*rep.TelemetryShare)
	if rep.SidecarIdleMiB > 0 {
		fmt.Fprintf(out, "vitrine-proxy idle with a control plane and 100 services: %.1f MiB\n", rep.SidecarIdleMiB)
	}
	return nil
}
