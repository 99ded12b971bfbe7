package telemetry

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// Defaults of Options.
const (
	defaultReportInterval = 5 * time.Second  // Istio's tcp_reporting_duration
	DefaultEvictAfter     = 15 * time.Minute // what callers should offer as default
	defaultMaxHosts       = 200
	defaultAccessLogSize  = 256 // with a Writer
)

// unwrittenLogSize is how many entries are kept by default when nobody writes
// them. Each request fills the entry that was not used for longest, so a large
// log keeps the processor's caches cold.
const unwrittenLogSize = 32

// Options configure a Recorder.
type Options struct {
	// Self is the workload whose proxy this is: the local side of every edge.
	Self mesh.Workload
	// Gateway makes every edge report as "source" and never use HostFallback,
	// as Istio's gateways do.
	Gateway bool
	// Version is the tag of istio_build.
	Version string
	// Log takes what the recorder itself has to say; nil discards it.
	Log *slog.Logger
	// ReportInterval is how often live connections and gRPC streams are
	// reported; 0 means 5 s.
	ReportInterval time.Duration
	// EvictAfter is how long a series may be silent before it is forgotten;
	// 0 means for ever, and otherwise it is at least ReportInterval.
	EvictAfter time.Duration
	// Buckets are the upper bounds of the request histograms, ascending, in
	// milliseconds and in bytes alike; nil means Envoy's, up to an hour.
	Buckets []float64
	// MaxHosts bounds the distinct values of EdgeKey.HostFallback that become
	// label values; further ones are counted as "other". 0 means 200.
	MaxHosts int
	// AccessLog configures the log of requests and connections.
	AccessLog AccessLogOptions
}

// AccessLogOptions configure the access log.
type AccessLogOptions struct {
	// Size is how many of the latest entries are kept in memory, rounded up to
	// a power of two; 0 means 256 with a Writer, and a few without. While Writer is
	// slow, it is also how many entries may wait.
	Size int
	// Writer gets one JSON object per line with the keys of Istio's default
	// format, written by Run; nil writes nothing. Entries that it is too slow
	// for are dropped and counted.
	Writer io.Writer
}

// defaultBuckets are Envoy's default histogram bounds, which Istio uses for
// milliseconds and bytes.
func defaultBuckets() []float64 {
	return []float64{
		0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000,
		10000, 30000, 60000, 300000, 600000, 1800000, 3600000,
	}
}

const maxBuckets = 100

func (o *Options) setDefaults() error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.ReportInterval == 0 {
		o.ReportInterval = defaultReportInterval
	}
	if o.Buckets == nil {
		o.Buckets = defaultBuckets()
	}
	if o.MaxHosts == 0 {
		o.MaxHosts = defaultMaxHosts
	}
	switch {
	case o.AccessLog.Size != 0:
	case o.AccessLog.Writer != nil:
		o.AccessLog.Size = defaultAccessLogSize
	default:
		o.AccessLog.Size = unwrittenLogSize
	}
	var errs []error
	if o.ReportInterval < 0 {
		errs = append(errs, fmt.Errorf("report interval %s: must be positive", o.ReportInterval))
	}
	if o.EvictAfter < 0 || o.EvictAfter > 0 && o.EvictAfter < o.ReportInterval {
		errs = append(errs, fmt.Errorf("evict after %s: must be 0 (never) or at least the report interval, %s", o.EvictAfter, o.ReportInterval))
	}
	if o.MaxHosts < 0 {
		errs = append(errs, fmt.Errorf("max hosts %d: must not be negative", o.MaxHosts))
	}
	if o.AccessLog.Size < 0 || o.AccessLog.Size > 1<<20 {
		errs = append(errs, fmt.Errorf("access log size %d: must be 1 to %d", o.AccessLog.Size, 1<<20))
	}
	errs = append(errs, checkBuckets(o.Buckets))
	return errors.Join(errs...)
}

func checkBuckets(bounds []float64) error {
	if len(bounds) == 0 || len(bounds) > maxBuckets {
		return fmt.Errorf("%d histogram buckets: must be 1 to %d", len(bounds), maxBuckets)
	}
	for i, b := range bounds {
		if math.IsNaN(b) || b < 0 || b > 1e12 {
			return fmt.Errorf("histogram bucket bound %v: must be 0 to 1e12", b)
		}
		if i > 0 && b <= bounds[i-1] {
			return fmt.Errorf("histogram bucket bounds %v: must ascend", bounds)
		}
	}
	return nil
}

func (o *Options) clone() Options {
	c := *o
	c.Self = o.Self.Clone()
	c.Buckets = slices.Clone(o.Buckets)
	return c
}
