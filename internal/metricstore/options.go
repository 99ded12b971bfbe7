package metricstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"time"
)

// Options configure a Store. The zero value of every field but Dir means its
// default.
type Options struct {
	// Dir holds the samples; it is created with mode 0700 and locked while the
	// store is open.
	Dir string
	// ScrapeInterval is the pause between two scrapes of a target (5 s).
	ScrapeInterval time.Duration
	// ScrapeTimeout bounds one scrape; shorter than ScrapeInterval (4/5 of it).
	ScrapeTimeout time.Duration
	// EvaluationInterval is the pause between evaluations of a rule group that
	// names none itself (15 s).
	EvaluationInterval time.Duration
	// RetentionTime is how long samples are kept (15 days).
	RetentionTime time.Duration
	// RetentionBytes bounds the size of the stored blocks; the oldest go
	// first. 0 is no bound.
	RetentionBytes int64
	// MinFreeBytes of the file system stay free: below it the store stops
	// writing until there is space again (64 MiB). Space for the samples that
	// are in memory is kept free in addition.
	MinFreeBytes int64
	// Limits bound queries and scrapes.
	Limits Limits
	// RuleFiles are Prometheus rule files; a file that does not parse is an
	// error of Open.
	RuleFiles []string
	// Notify is told of the alerts that fire or are resolved. It is called by
	// one goroutine per rule group and must not keep alerts. Nil drops them;
	// they are visible in the API all the same.
	Notify func(ctx context.Context, alerts []Alert)
	// RemoteWrite are the places that get a copy of every sample.
	RemoteWrite []RemoteWriteConfig
	// ExternalURL is where users reach the Handler (http://127.0.0.1:9090);
	// links in alerts begin with it.
	ExternalURL string
	// Version is whose store this is: the revision that the build-info endpoint
	// answers. Its version is that of the embedded Prometheus.
	Version string
	// Log takes what the store has to say; nil discards it.
	Log *slog.Logger
}

// Limits bound what one query or scrape may cost.
type Limits struct {
	// MaxSamples is how many samples one query may hold in memory (20 million,
	// at 16 bytes each; Prometheus's own default is 50 million).
	MaxSamples int
	// Timeout bounds the duration of a query (30 s; Prometheus: 2 min).
	Timeout time.Duration
	// Concurrency is how many queries run at once (20); others wait.
	Concurrency int
	// ScrapeSamples is how many samples one scrape may bring (200,000). A
	// scrape with more fails as a whole, which its target then shows.
	ScrapeSamples int
	// ScrapeBytes bounds one scrape's uncompressed body (64 MiB).
	ScrapeBytes int64
}

// RemoteWriteConfig is a server that gets a copy of every sample by
// Prometheus's remote write protocol 1.0.
type RemoteWriteConfig struct {
	URL  string
	Name string // in logs and metrics; optional, unique
	// Headers are sent with each request.
	Headers map[string]string
	// BearerTokenFile holds a token for the Authorization header; optional.
	BearerTokenFile string
	// CAFile holds the certificates to trust instead of the system's; optional.
	CAFile string
	// Timeout bounds one request (30 s).
	Timeout time.Duration
	// SendExemplars adds exemplars.
	SendExemplars bool
}

// Alert is one alert of a rule.
type Alert struct {
	Labels      map[string]string
	Annotations map[string]string
	Value       float64   // of the expression when it was last evaluated
	StartsAt    time.Time // since when it fires
	EndsAt      time.Time // when it was resolved, or when it may be taken for resolved if nothing more is heard
	Resolved    bool
	// GeneratorURL shows the expression of the rule.
	GeneratorURL string
}

// errOptions is wrapped by every error about Options.
var errOptions = errors.New("metric store options")

// withDefaults fills in defaults and validates.
func (o Options) withDefaults() (Options, error) {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.ScrapeInterval, 5*time.Second)
	def(&o.ScrapeTimeout, o.ScrapeInterval*4/5)
	def(&o.EvaluationInterval, 15*time.Second)
	def(&o.RetentionTime, 15*24*time.Hour)
	def(&o.Limits.Timeout, 30*time.Second)
	if o.Limits.MaxSamples == 0 {
		o.Limits.MaxSamples = 20_000_000
	}
	if o.Limits.Concurrency == 0 {
		o.Limits.Concurrency = 20
	}
	if o.Limits.ScrapeSamples == 0 {
		o.Limits.ScrapeSamples = 200_000
	}
	if o.Limits.ScrapeBytes == 0 {
		o.Limits.ScrapeBytes = 64 << 20
	}
	if o.MinFreeBytes == 0 {
		o.MinFreeBytes = 64 << 20
	}
	if o.ExternalURL == "" {
		o.ExternalURL = "http://127.0.0.1:9090"
	}
	if o.Version == "" {
		o.Version = "devel"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	} else {
		o.Log = slog.New(redactor{o.Log.Handler()})
	}
	return o, o.validate()
}

func (o *Options) validate() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{errOptions}, args...)...))
	}
	if o.Dir == "" {
		bad("no directory given")
	} else if dir, err := filepath.Abs(o.Dir); err != nil {
		bad("directory %s: %w", o.Dir, err)
	} else {
		o.Dir = dir
	}
	// Prometheus's durations have millisecond resolution.
	if o.ScrapeInterval < time.Millisecond || o.ScrapeTimeout < time.Millisecond || o.ScrapeTimeout > o.ScrapeInterval {
		bad("scrape interval %v and timeout %v: both must be at least 1ms, and the timeout not longer than the interval",
			o.ScrapeInterval, o.ScrapeTimeout)
	}
	if o.EvaluationInterval < time.Millisecond {
		bad("evaluation interval %v: must be at least 1ms", o.EvaluationInterval)
	}
	if o.RetentionTime < time.Hour {
		bad("retention time %v: must be at least 1h", o.RetentionTime)
	}
	if o.RetentionBytes < 0 || o.MinFreeBytes < 0 {
		bad("sizes must not be negative")
	}
	l := o.Limits
	if l.MaxSamples < 0 || l.Timeout < 0 || l.Concurrency < 0 || l.ScrapeSamples < 0 || l.ScrapeBytes < 0 {
		bad("limits must not be negative")
	}
	if u, err := url.Parse(o.ExternalURL); err != nil || u.Host == "" {
		bad("external URL %q: give scheme and host, as in http://127.0.0.1:9090", o.ExternalURL)
	}
	for _, w := range o.RemoteWrite {
		if u, err := url.Parse(w.URL); err != nil || u.Host == "" {
			bad("remote write URL %q: give scheme, host and path, as in http://prometheus:9090/api/v1/write", w.URL)
		}
	}
	return errors.Join(errs...)
}
