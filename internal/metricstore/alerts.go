package metricstore

import (
	"context"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/util/strutil"
)

// newRuleManager makes the manager of recording and alerting rules.
func (s *Store) newRuleManager(p parser.Parser) *rules.Manager {
	ext, _ := url.Parse(s.opts.ExternalURL) // validated
	return rules.NewManager(&rules.ManagerOptions{
		NameValidationScheme: s.config.Load().GlobalConfig.MetricNameValidationScheme,
		Appendable:           s.writable,
		Queryable:            s.db,
		QueryFunc:            rules.EngineQueryFunc(s.engine, s.db),
		NotifyFunc:           s.notify,
		// The manager wants a context for all its life; Stop ends it.
		Context:                context.Background(),
		ExternalURL:            ext,
		Registerer:             s.registry,
		Logger:                 slog.New(onceTold{s.opts.Log.Handler()}).With("component", "rules"),
		OutageTolerance:        time.Hour,
		ForGracePeriod:         10 * time.Minute,
		ResendDelay:            time.Minute,
		MaxConcurrentEvals:     4,
		DefaultRuleQueryOffset: func() time.Duration { return 0 },
		FeatureRegistry:        s.features,
		Parser:                 p,
	})
}

// notify hands alerts to Options.Notify.
func (s *Store) notify(ctx context.Context, expr string, alerts ...*rules.Alert) {
	if s.opts.Notify == nil || len(alerts) == 0 {
		return
	}
	out := make([]Alert, 0, len(alerts))
	for _, a := range alerts {
		alert := Alert{
			Labels: a.Labels.Map(), Annotations: a.Annotations.Map(), Value: a.Value,
			StartsAt: a.FiredAt, EndsAt: a.ValidUntil,
			GeneratorURL: strings.TrimSuffix(s.opts.ExternalURL, "/") + strutil.TableLinkForExpression(expr),
		}
		if !a.ResolvedAt.IsZero() {
			alert.EndsAt, alert.Resolved = a.ResolvedAt, true
		}
		out = append(out, alert)
	}
	s.opts.Notify(ctx, out)
}
