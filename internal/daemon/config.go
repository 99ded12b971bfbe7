package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/metricstore"
)

// Config is everything a control plane is told when it starts. The zero value
// of a field means its documented default; Normalize fills them in.
type Config struct {
	// Files are manifest files and directories; empty starts an empty mesh.
	Files []string
	// Watch applies changes of Files while running.
	Watch bool
	// RunDir holds sockets and the state of what runs now. One mesh per RunDir.
	// Default: $XDG_RUNTIME_DIR/vitrine, /run/vitrine for root.
	RunDir string
	// DataDir holds what outlives a reboot: metrics, logs, addresses.
	// Default: $XDG_DATA_HOME/vitrine or ~/.local/share/vitrine, /var/lib/vitrine for root.
	DataDir string
	// ProxyBinary is the vitrine-proxy to start. Default: beside this executable, then PATH.
	ProxyBinary string
	// PrometheusAddr serves /api/v1. Default DefaultPrometheusAddr. "" after Normalize is never.
	PrometheusAddr string
	// ControlAddr serves the control plane's own metrics. Default DefaultControlAddr.
	ControlAddr string

	ScrapeInterval time.Duration // default 5 s
	RetentionTime  time.Duration // default 15 days
	RetentionBytes int64         // default 2 GiB; 0 keeps the default, -1 is no bound
	EvictAfter     time.Duration // silent series of proxies; default 15 min, negative is never
	RemoteWrite    []string      // URLs that receive every sample
	RuleFiles      []string      // Prometheus rule files
	QueryURL       string        // external Prometheus-compatible server that answers queries instead

	// Version is the build's version.
	Version string
}

// DefaultRunDir is where the current user's mesh has its sockets.
func DefaultRunDir() string {
	if os.Geteuid() == 0 {
		return "/run/vitrine"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		if info, err := os.Stat(dir); err == nil && info.IsDir() { //nolint:gosec // the user chooses their own directory
			return filepath.Join(dir, "vitrine")
		}
	}
	return filepath.Join(os.TempDir(), "vitrine-"+strconv.Itoa(os.Geteuid()))
}

// Where a mesh listens unless it is told otherwise; a second mesh needs others.
const (
	DefaultPrometheusAddr = "127.0.0.1:9090"
	DefaultControlAddr    = "127.0.0.1:15014"
)

// DefaultDataDir is where the current user's mesh keeps its data.
func DefaultDataDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/vitrine"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "vitrine")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "share", "vitrine")
	}
	return filepath.Join(DefaultRunDir(), "data")
}

// ConfigError lists everything that is wrong with a Config, each reason under
// the flag that sets the field.
type ConfigError struct{ Reasons []error }

func (e *ConfigError) Error() string { return errors.Join(e.Reasons...).Error() }

func (c *Config) setDefaults() {
	setDefault(&c.RunDir, DefaultRunDir())
	setDefault(&c.DataDir, DefaultDataDir())
	setDefault(&c.PrometheusAddr, DefaultPrometheusAddr)
	setDefault(&c.ControlAddr, DefaultControlAddr)
	setDefault(&c.Version, "dev")
	setDefault(&c.ScrapeInterval, 5*time.Second)
	setDefault(&c.RetentionTime, 15*24*time.Hour)
	setDefault(&c.RetentionBytes, 2<<30)
	setDefault(&c.EvictAfter, 15*time.Minute)
}

// Normalize fills in defaults and checks every field. Wrong values are a
// *ConfigError.
func (c *Config) Normalize() error {
	c.setDefaults()
	var errs []error
	for _, dir := range []*string{&c.RunDir, &c.DataDir} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			errs = append(errs, fmt.Errorf("directory %q: %w", *dir, err))
			continue
		}
		*dir = abs
	}
	// A Unix socket's path may have at most 107 bytes (sun_path).
	if n := len(filepath.Join(c.RunDir, controlSocket)); n > maxRunDir {
		errs = append(errs, fmt.Errorf("--run-dir %s is too long for the sockets below it: choose one of at most %d bytes", c.RunDir, maxRunDir-len(controlSocket)-1))
	}
	errs = append(errs, checkLoopback("--prometheus-addr", c.PrometheusAddr), checkLoopback("--control-addr", c.ControlAddr))
	if c.PrometheusAddr == c.ControlAddr && !strings.HasSuffix(c.ControlAddr, ":0") {
		errs = append(errs, fmt.Errorf("--prometheus-addr and --control-addr are both %s: choose two ports", c.ControlAddr))
	}
	errs = append(errs, c.checkMetrics()...)
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) > 0 {
		return &ConfigError{Reasons: errs}
	}
	return c.findProxy()
}

// maxRunDir is the longest path of the control socket that leaves room for the
// sockets of pods below the run directory.
const maxRunDir = 60

// minEvict is the shortest time after which a proxy may forget a series: two of
// its report intervals (telemetry), so that nothing that lives falls silent.
const minEvict = 10 * time.Second

// checkMetrics checks what has to do with metrics and queries.
func (c *Config) checkMetrics() []error {
	var errs []error
	if c.ScrapeInterval < 100*time.Millisecond {
		errs = append(errs, fmt.Errorf("--scrape-interval %s: want at least 100ms", c.ScrapeInterval))
	}
	if c.RetentionTime < time.Hour {
		errs = append(errs, fmt.Errorf("--retention-time %s: want at least 1h", c.RetentionTime))
	}
	if c.RetentionBytes < 1<<20 && c.RetentionBytes != -1 {
		errs = append(errs, fmt.Errorf("--retention-bytes %d: want at least %d, or -1 for no bound", c.RetentionBytes, 1<<20))
	}
	// A series must be scraped before it is forgotten.
	if least := max(minEvict, 2*c.ScrapeInterval); c.EvictAfter > 0 && c.EvictAfter < least {
		errs = append(errs, fmt.Errorf("--evict-after %s: want at least %s, or a negative duration for never", c.EvictAfter, least))
	}
	for _, s := range c.RemoteWrite {
		if u, err := url.Parse(s); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			errs = append(errs, fmt.Errorf("--remote-write %q: want a URL, as in http://prometheus:9090/api/v1/write", s))
		}
	}
	if c.QueryURL != "" {
		if remote, err := metricstore.NewRemote(c.QueryURL); err != nil {
			errs = append(errs, fmt.Errorf("--query-url: %w", err))
		} else {
			remote.Close()
		}
	}
	for i, path := range c.RuleFiles {
		abs, err := filepath.Abs(path)
		if err == nil {
			c.RuleFiles[i] = abs
			err = metricstore.CheckRules(abs)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("--rules %s: %w", path, err))
		}
	}
	return errs
}

// checkLoopback wants an address that only this machine reaches: what is served
// there asks nobody for a password.
func checkLoopback(flag, addr string) error {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return fmt.Errorf("%s %q: want IP:PORT, as in 127.0.0.1:9090", flag, addr)
	}
	if !ap.Addr().IsLoopback() {
		return fmt.Errorf("%s %s: want a loopback address, since nothing there asks for a password; put a reverse proxy in front to reach it from elsewhere", flag, addr)
	}
	return nil
}

// findProxy completes ProxyBinary to the absolute path of a program.
func (c *Config) findProxy() error {
	if c.ProxyBinary == "" {
		path, err := findProxy()
		if err != nil {
			return err
		}
		c.ProxyBinary = path
	}
	abs, err := filepath.Abs(c.ProxyBinary)
	if err != nil {
		return fmt.Errorf("--proxy-binary: %w", err)
	}
	c.ProxyBinary = abs
	if info, err := os.Stat(abs); err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("--proxy-binary %s is not a program: build it with `make build`", abs)
	}
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
