package metricstore

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"
)

// Target is one place to scrape.
type Target struct {
	Address string            // host:port
	Path    string            // "/metrics" if empty
	Scheme  string            // "http" if empty
	Labels  map[string]string // added to each series that does not have them; instance defaults to Address
}

// SetTargets replaces the targets of one job. It takes effect within 0.1 s: new
// targets are scraped for the first time within one scrape interval (spread
// over it, so that targets are not all scraped at the same moment), and targets
// that are gone get staleness markers after two intervals, unless they come
// back. Targets that are equal to existing ones are not disturbed. The slice
// is not kept.
func (s *Store) SetTargets(job string, ts []Target) {
	s.mu.Lock()
	s.targets[job] = slices.Clone(ts)
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// forwardTargets tells the scrape manager of each change of the targets, and
// stops it when ctx ends.
func (s *Store) forwardTargets(ctx context.Context, groups chan<- map[string][]*targetgroup.Group) {
	defer func() {
		// The manager applies targets with a delay. Without any it cannot make
		// new scrape loops while and after it is stopped; the second send
		// returns when the first has been dealt with.
		groups <- nil
		groups <- nil
		s.scraper.Stop()
	}()
	var jobs []string
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		}
		s.mu.Lock()
		targets := maps.Clone(s.targets)
		s.mu.Unlock()
		if now := slices.Sorted(maps.Keys(targets)); !slices.Equal(now, jobs) {
			if err := s.applyJobs(now); err != nil {
				s.opts.Log.Error("targets not changed", "error", err)
				continue
			}
			jobs = now
		}
		sets := make(map[string][]*targetgroup.Group, len(targets))
		for job, ts := range targets {
			group := &targetgroup.Group{Source: job}
			for _, t := range ts {
				group.Targets = append(group.Targets, t.labelSet())
			}
			sets[job] = []*targetgroup.Group{group}
		}
		select {
		case <-ctx.Done():
			return
		case groups <- sets:
		}
	}
}

// applyJobs makes the scrape manager know the jobs.
func (s *Store) applyJobs(jobs []string) error {
	cfg, err := buildConfig(s.opts, jobs)
	if err != nil {
		return err
	}
	if err := s.scraper.ApplyConfig(cfg); err != nil {
		return fmt.Errorf("configure scraping: %w", err)
	}
	s.config.Store(cfg)
	return nil
}

// labelSet is the target as service discovery would find it.
func (t Target) labelSet() model.LabelSet {
	set := make(model.LabelSet, len(t.Labels)+3)
	for k, v := range t.Labels {
		set[model.LabelName(k)] = model.LabelValue(v)
	}
	set[model.AddressLabel] = model.LabelValue(t.Address)
	if t.Path != "" {
		set[model.MetricsPathLabel] = model.LabelValue(t.Path)
	}
	if t.Scheme != "" {
		set[model.SchemeLabel] = model.LabelValue(t.Scheme)
	}
	return set
}

// scrapeLabels are the labels that scraping t as part of job adds to series.
func (s *Store) scrapeLabels(job string, t Target) (labels.Labels, error) {
	cfg, err := buildConfig(s.opts, []string{job})
	if err != nil {
		return labels.EmptyLabels(), err
	}
	scrapes, err := cfg.GetScrapeConfigs()
	if err != nil {
		return labels.EmptyLabels(), fmt.Errorf("configure scraping: %w", err)
	}
	lb := labels.NewBuilder(labels.EmptyLabels())
	full, err := scrape.PopulateLabels(lb, scrapes[0], t.labelSet(), nil)
	if err != nil {
		return labels.EmptyLabels(), fmt.Errorf("labels of target %s: %w", t.Address, err)
	}
	target := scrape.NewTarget(full, scrapes[0], nil, nil)
	return target.Labels(labels.NewBuilder(labels.EmptyLabels())), nil
}
