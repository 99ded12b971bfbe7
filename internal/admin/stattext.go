package admin

import (
	"math"
	"strconv"
	"strings"
)

// statKind is the kind of a stat, in Envoy's words.
type statKind uint8

const (
	statCounter statKind = iota
	statGauge
	statHistogram
)

func (k statKind) String() string { return [...]string{"Counter", "Gauge", "Histogram"}[k] }

// stat is one number or histogram of /stats. name includes the labels.
type stat struct {
	name    string
	kind    statKind
	value   string // of counters and gauges
	buckets []statBucket
}

// statBucket is a cumulative bucket of a histogram.
type statBucket struct{ upper, count float64 }

func (s *stat) used() bool {
	if s.kind == statHistogram {
		return len(s.buckets) > 0 && s.buckets[len(s.buckets)-1].count > 0
	}
	return s.value != "0"
}

// parseStats reads Prometheus's text format 0.0.4 as our own recorder writes it:
// a # TYPE line before the samples of a family, the le label last. Other lines
// are skipped.
func parseStats(text string) []stat {
	kinds := map[string]string{}
	var out []stat
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			kinds[name] = kind
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		if at <= 0 || line[0] == '#' {
			continue
		}
		series, value := line[:at], line[at+1:]
		name, rest, labelled := strings.Cut(series, "{")
		switch kinds[name] {
		case "counter":
			out = append(out, stat{name: series, kind: statCounter, value: whole(value)})
			continue
		case "gauge":
			out = append(out, stat{name: series, kind: statGauge, value: whole(value)})
			continue
		}
		base, ok := strings.CutSuffix(name, "_bucket")
		if !ok || kinds[base] != "histogram" || !labelled {
			continue
		}
		out = addBucket(out, base, rest, value)
	}
	return out
}

// whole writes a whole number without exponent, as Envoy does.
func whole(value string) string {
	v, err := strconv.ParseFloat(value, 64)
	if err != nil || v != math.Trunc(v) || math.Abs(v) >= 1<<53 {
		return value
	}
	return strconv.FormatInt(int64(v), 10)
}

// addBucket adds one _bucket sample to the histogram at the end of out, or
// begins a new one. rest is the label set after its opening brace.
func addBucket(out []stat, base, rest, value string) []stat {
	at := strings.LastIndex(rest, `le="`)
	if at < 0 {
		return out
	}
	upper, err1 := strconv.ParseFloat(strings.TrimSuffix(rest[at+len(`le="`):], `"}`), 64)
	count, err2 := strconv.ParseFloat(value, 64)
	if err1 != nil || err2 != nil {
		return out
	}
	name := base
	if labels := strings.TrimSuffix(rest[:at], ","); labels != "" {
		name += "{" + labels + "}"
	}
	if n := len(out); n == 0 || out[n-1].name != name || out[n-1].kind != statHistogram {
		out = append(out, stat{name: name, kind: statHistogram})
	}
	h := &out[len(out)-1]
	h.buckets = append(h.buckets, statBucket{upper, count})
	return out
}

// quantiles are the ones that Envoy shows.
func quantiles() []float64 { return []float64{0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100} }

// quantile estimates a percentile by linear interpolation within its bucket;
// NaN when nothing was observed.
func (s *stat) quantile(percent float64) float64 {
	if s.kind != statHistogram || !s.used() {
		return math.NaN()
	}
	rank := percent / 100 * s.buckets[len(s.buckets)-1].count
	lower, below := 0.0, 0.0
	for _, b := range s.buckets {
		if b.count > below && b.count >= rank {
			if math.IsInf(b.upper, 1) {
				return lower
			}
			return lower + (b.upper-lower)*max(0, rank-below)/(b.count-below)
		}
		lower, below = b.upper, b.count
	}
	return lower
}

func percentName(p float64) string { return strconv.FormatFloat(p, 'f', -1, 64) }

func number(v float64) string {
	if math.IsNaN(v) {
		return "nan"
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}

// statsText is Envoy's format: name: value; for histograms the percentiles as
// P(interval,since start). Intervals are not kept.
func statsText(list []stat) string {
	var b strings.Builder
	for i := range list {
		s := &list[i]
		b.WriteString(s.name + ": ")
		if s.kind != statHistogram {
			b.WriteString(s.value + "\n")
			continue
		}
		if !s.used() {
			b.WriteString("No recorded values\n")
			continue
		}
		for j, p := range quantiles() {
			if j > 0 {
				b.WriteByte(' ')
			}
			b.WriteString("P" + percentName(p) + "(nan," + number(s.quantile(p)) + ")")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// The JSON form of /stats.
type (
	statJSON struct {
		Name  string  `json:"name"`
		Value float64 `json:"value"`
	}
	histogramsJSON struct {
		Histograms struct {
			Supported []float64       `json:"supported_quantiles"`
			Computed  []histogramJSON `json:"computed_quantiles"`
		} `json:"histograms"`
	}
	histogramJSON struct {
		Name   string         `json:"name"`
		Values []quantileJSON `json:"values"`
	}
	quantileJSON struct {
		Interval   *float64 `json:"interval"`
		Cumulative *float64 `json:"cumulative"`
	}
)

func statsJSON(list []stat) any {
	items := []any{}
	var h histogramsJSON
	h.Histograms.Supported = quantiles()
	for i := range list {
		s := &list[i]
		if s.kind != statHistogram {
			v, err := strconv.ParseFloat(s.value, 64)
			if err == nil && !math.IsNaN(v) && !math.IsInf(v, 0) {
				items = append(items, statJSON{s.name, v})
			}
			continue
		}
		hist := histogramJSON{Name: s.name}
		for _, p := range quantiles() {
			var q quantileJSON
			if v := s.quantile(p); !math.IsNaN(v) && !math.IsInf(v, 0) {
				q.Cumulative = &v
			}
			hist.Values = append(hist.Values, q)
		}
		h.Histograms.Computed = append(h.Histograms.Computed, hist)
	}
	if len(h.Histograms.Computed) > 0 {
		items = append(items, h)
	}
	return map[string]any{"stats": items}
}
