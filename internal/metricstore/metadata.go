package metricstore

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/scrape"
)

// metadataQuery are the parameters of /api/v1/metadata; below 0 is no limit.
type metadataQuery struct {
	metric          string
	limit, perLimit int
}

func parseMetadataQuery(r *http.Request) (metadataQuery, error) {
	q := metadataQuery{metric: r.FormValue("metric"), limit: -1, perLimit: -1}
	for _, p := range []struct {
		name string
		to   *int
	}{{"limit", &q.limit}, {"limit_per_metric", &q.perLimit}} {
		text := r.FormValue(p.name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return q, errors.New(p.name + " must be a number")
		}
		*p.to = n
	}
	return q, nil
}

// serveMetadata takes the place of Prometheus's own /api/v1/metadata, which knows
// a counter only by its family. In OpenMetrics that lacks the _total of the
// samples, so that a client that asks for the type of istio_requests_total, as it
// would of Istio's proxies, learnt nothing. Here a counter is known by both.
func (s *Store) serveMetadata(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	q, err := parseMetadataQuery(r)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"status": "error", "errorType": "bad_data", "error": err.Error()}) // the client may be gone
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": q.of(s.scraper.TargetsActive())})
}

// of gathers what the targets of all jobs say of their metrics.
func (q metadataQuery) of(jobs map[string][]*scrape.Target) map[string][]metadata.Metadata {
	found := map[string][]metadata.Metadata{}
	for _, targets := range jobs {
		for _, t := range targets {
			for _, m := range t.ListMetadata() {
				q.add(found, m.MetricFamily, m)
				if m.Type == model.MetricTypeCounter && !strings.HasSuffix(m.MetricFamily, totalSuffix) {
					q.add(found, m.MetricFamily+totalSuffix, m)
				}
			}
		}
	}
	return found
}

const totalSuffix = "_total" // OpenMetrics 1.0, "Counter"

func (q metadataQuery) add(to map[string][]metadata.Metadata, name string, m scrape.MetricMetadata) {
	have, known := to[name]
	one := metadata.Metadata{Type: m.Type, Help: m.Help, Unit: m.Unit}
	switch {
	case q.metric != "" && q.metric != name,
		!known && q.limit >= 0 && len(to) >= q.limit,
		q.perLimit > 0 && len(have) >= q.perLimit,
		slices.Contains(have, one):
		return
	}
	to[name] = append(have, one)
}
