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
	loadRate
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
	CPUMicros1000  float64    `json:"cpuMicros1000rps"`
	RequestsPerSec float64    `json:"requestsPerSecondC64"`
	AddedMicros    [3]float64 `json:"addedMicrosP50P90P99"`
	IdleMiB        float64    `json:"idlePSSMiB"`
	MiB64          float64    `json:"pss64ConnsMiB"`
	MiB1000        float64    `json:"pss1000ConnsMiB"`
	Syscalls       float64    `json:"syscallsPerRequest"`
	Allocs         *float64   `json:"allocsPerRequest,omitempty"`
	RatioC64       float64    `json:"vitrineRatioC64"` // ours divided by this one
	RatioC16       float64    `json:"vitrineRatioC16"`
	Ratio1000      float64    `json:"vitrineRatio1000rps"`

	allRounds      [loadKinds][]float64 // CPU µs per request, per round
	allRoundsAdded [][3]float64
}

// report is the whole outcome.
type report struct {
	Rounds       int        `json:"rounds"`
	Time         time.Time  `json:"time"`
	DirectMicros [3]float64 `json:"directMicrosP50P90P99"`
	Rows         []row      `json:"proxies"`
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
	time.Sleep(2 * time.Second)
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
	default:
		load, err = atRate(ctx, p.addr, 1000, 16, r.s.burst)
	}
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, err := cpuNanos(p.pid())
	if err != nil {
		return err
	}
	row := &r.rows[at]
	row.allRounds[kind] = append(row.allRounds[kind], float64(after-before)/1000/float64(load.Requests))
	switch kind {
	case loadC64:
		row.RequestsPerSec = math.Max(row.RequestsPerSec, float64(load.Requests)/took.Seconds())
	case loadRate:
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
		row.CPUMicros1000 = median(row.allRounds[loadRate])
		for q := range 3 {
			row.AddedMicros[q] = median(column(row.allRoundsAdded, q))
		}
	}
	ours := rep.Rows[0]
	for i := range rep.Rows {
		row := &rep.Rows[i]
		row.RatioC64 = ours.CPUMicrosC64 / row.CPUMicrosC64
		row.RatioC16 = ours.CPUMicrosC16 / row.CPUMicrosC16
		row.Ratio1000 = ours.CPUMicros1000 / row.CPUMicros1000
	}
	return rep
}

// write prints the table.
func (rep report) write(out io.Writer) error {
	fmt.Fprintf(out, "One proxy hop, HTTP/1.1 keep-alive, 1 KiB; medians of %d interleaved rounds; one core for the proxy.\n", rep.Rounds)
	fmt.Fprintf(out, "vitrine with all telemetry, peers with none. Direct p50/p90/p99 at 1,000/s: %.0f/%.0f/%.0f µs.\n\n", rep.DirectMicros[0], rep.DirectMicros[1], rep.DirectMicros[2])
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "proxy\tCPU µs/req c64\tc16\t1000/s\tvitrine÷it c64\tc16\t1000/s\tadded µs p50\tp90\tp99\tPSS MiB idle\t64\t1000 conns\tsyscalls/req\tallocs/req\t")
	for _, r := range rep.Rows {
		allocs := "-"
		if r.Allocs != nil {
			allocs = fmt.Sprintf("%.3f", *r.Allocs)
		}
		fmt.Fprintf(tw, "%s\t%.1f\t%.1f\t%.1f\t%.2f\t%.2f\t%.2f\t%+.0f\t%+.0f\t%+.0f\t%.1f\t%.1f\t%.1f\t%.2f\t%s\t\n", r.Name,
			r.CPUMicrosC64, r.CPUMicrosC16, r.CPUMicros1000, r.RatioC64, r.RatioC16, r.Ratio1000,
			r.AddedMicros[0], r.AddedMicros[1], r.AddedMicros[2], r.IdleMiB, r.MiB64, r.MiB1000, r.Syscalls, allocs)
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	return nil
}
