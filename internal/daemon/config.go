package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"
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
	// PrometheusAddr serves /api/v1. Default 127.0.0.1:9090. "" after Normalize is never.
	PrometheusAddr string
	// ControlAddr serves the control plane's own metrics. Default 127.0.0.1:15014.
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

// Normalize fills in defaults and checks every field; the error names the field.
func (c *Config) Normalize() error {
	setDefault(&c.RunDir, DefaultRunDir())
	setDefault(&c.DataDir, DefaultDataDir())
	setDefault(&c.PrometheusAddr, "127.0.0.1:9090")
	setDefault(&c.ControlAddr, "127.0.0.1:15014")
	setDefault(&c.Version, "dev")
	setDefault(&c.ScrapeInterval, 5*time.Second)
	setDefault(&c.RetentionTime, 15*24*time.Hour)
	setDefault(&c.RetentionBytes, 2<<30)
	setDefault(&c.EvictAfter, 15*time.Minute)
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
	if n := len(filepath.Join(c.RunDir, controlSocket)); n > 60 {
		errs = append(errs, fmt.Errorf("run directory %s is too long for the sockets below it: choose a shorter one with --run-dir", c.RunDir))
	}
	for name, addr := range map[string]string{"--prometheus-addr": c.PrometheusAddr, "--control-addr": c.ControlAddr} {
		if _, err := netip.ParseAddrPort(addr); err != nil {
			errs = append(errs, fmt.Errorf("%s %q: want IP:PORT: %w", name, addr, err))
		}
	}
	if c.ScrapeInterval < 100*time.Millisecond {
		errs = append(errs, fmt.Errorf("--scrape-interval %s: at least 100ms", c.ScrapeInterval))
	}
	if c.ProxyBinary == "" {
		path, err := findProxy()
		if err != nil {
			errs = append(errs, err)
		}
		c.ProxyBinary = path
	}
	return errors.Join(errs...)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
