package metricstore

import (
	"fmt"
	"path"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"go.yaml.in/yaml/v3"
)

// The part of Prometheus's configuration file that a Store uses. Prometheus
// accepts only a configuration that it has read from YAML, and clients read
// that YAML back from /api/v1/status/config, so it is built as a file would be.
type (
	fileConfig struct {
		Global      fileGlobal        `yaml:"global"`
		RuleFiles   []string          `yaml:"rule_files,omitempty"`
		Scrape      []fileScrape      `yaml:"scrape_configs,omitempty"`
		Storage     fileStorage       `yaml:"storage"`
		RemoteWrite []fileRemoteWrite `yaml:"remote_write,omitempty"`
	}
	fileGlobal struct {
		ScrapeInterval     model.Duration          `yaml:"scrape_interval"`
		ScrapeTimeout      model.Duration          `yaml:"scrape_timeout"`
		EvaluationInterval model.Duration          `yaml:"evaluation_interval"`
		ScrapeProtocols    []config.ScrapeProtocol `yaml:"scrape_protocols"`
		BodySizeLimit      string                  `yaml:"body_size_limit"`
		SampleLimit        int                     `yaml:"sample_limit"`
	}
	fileScrape struct {
		JobName     string `yaml:"job_name"`
		HonorLabels bool   `yaml:"honor_labels"`
	}
	fileStorage struct {
		TSDB struct {
			Retention struct {
				Time model.Duration `yaml:"time"`
				Size string         `yaml:"size,omitempty"`
			} `yaml:"retention"`
		} `yaml:"tsdb"`
		Exemplars struct {
			Max int64 `yaml:"max_exemplars"`
		} `yaml:"exemplars"`
	}
	fileRemoteWrite struct {
		URL           string            `yaml:"url"`
		Name          string            `yaml:"name,omitempty"`
		RemoteTimeout model.Duration    `yaml:"remote_timeout,omitempty"`
		Headers       map[string]string `yaml:"headers,omitempty"`
		SendExemplars bool              `yaml:"send_exemplars,omitempty"`
		Authorization *fileAuth         `yaml:"authorization,omitempty"`
		TLS           *fileTLS          `yaml:"tls_config,omitempty"`
	}
	fileAuth struct {
		File string `yaml:"credentials_file"`
	}
	fileTLS struct {
		CAFile string `yaml:"ca_file"`
	}
)

// maxExemplars is the size of the ring of exemplars in memory (about 100 bytes each).
const maxExemplars = 20_000

// buildConfig makes the configuration for the options and job names.
func buildConfig(o Options, jobs []string) (*config.Config, error) {
	f := fileConfig{
		Global: fileGlobal{
			ScrapeInterval:     model.Duration(o.ScrapeInterval),
			ScrapeTimeout:      model.Duration(o.ScrapeTimeout),
			EvaluationInterval: model.Duration(o.EvaluationInterval),
			// Protobuf first: created timestamps come with each series, where
			// OpenMetrics text makes the parser search ahead for them.
			ScrapeProtocols: config.DefaultProtoFirstScrapeProtocols,
			BodySizeLimit:   fmt.Sprintf("%dB", o.Limits.ScrapeBytes),
			SampleLimit:     o.Limits.ScrapeSamples,
		},
	}
	for _, r := range o.RuleFiles {
		f.RuleFiles = append(f.RuleFiles, path.Clean(r))
	}
	f.Storage.TSDB.Retention.Time = model.Duration(o.RetentionTime.Truncate(time.Millisecond))
	if o.RetentionBytes > 0 {
		f.Storage.TSDB.Retention.Size = fmt.Sprintf("%dB", o.RetentionBytes)
	}
	f.Storage.Exemplars.Max = maxExemplars
	for _, job := range jobs {
		// As in Istio's Prometheus addon: what a target says of itself wins
		// over what discovery says of it.
		f.Scrape = append(f.Scrape, fileScrape{JobName: job, HonorLabels: true})
	}
	for _, w := range o.RemoteWrite {
		rw := fileRemoteWrite{
			URL: w.URL, Name: w.Name, RemoteTimeout: model.Duration(w.Timeout),
			Headers: w.Headers, SendExemplars: w.SendExemplars,
		}
		if w.BearerTokenFile != "" {
			rw.Authorization = &fileAuth{File: w.BearerTokenFile}
		}
		if w.CAFile != "" {
			rw.TLS = &fileTLS{CAFile: w.CAFile}
		}
		f.RemoteWrite = append(f.RemoteWrite, rw)
	}
	text, err := yaml.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	cfg, err := config.Load(string(text), o.Log)
	if err != nil {
		return nil, fmt.Errorf("configuration of the metric store: %w", err)
	}
	return cfg, nil
}
