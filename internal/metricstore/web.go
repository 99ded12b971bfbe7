package metricstore

import (
	"cmp"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/model/labels"
)

// newHandler makes the mux of Handler.
func (s *Store) newHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/api/v1/", http.StripPrefix("/api/v1", s.newAPI()))
	mux.HandleFunc("GET /api/v1/metadata", s.whenReady(s.serveMetadata))
	mux.Handle("GET /metrics", promhttp.InstrumentMetricHandler(s.registry, promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		Registry: s.registry, EnableOpenMetrics: true, EnableOpenMetricsTextCreatedSamples: true,
	})))
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) {
		text(w, "Prometheus Server is Healthy.\n")
	})
	mux.HandleFunc("GET /-/ready", s.whenReady(func(w http.ResponseWriter, _ *http.Request) {
		text(w, "Prometheus Server is Ready.\n")
	}))
	mux.HandleFunc("GET /targets", s.serveTargets)
	mux.HandleFunc("GET /{$}", s.serveIndex)
	return mux
}

func text(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(body)) // the client may be gone
}

// page is a parsed HTML page; parsing cannot fail, since the text is fixed and
// a test executes it.
func page(name, body string) *template.Template {
	const frame = `<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{{block "title" .}}{{end}}</title>
<style>body{font:14px/1.5 system-ui,sans-serif;margin:2rem;color:#222;background:#fff}table{border-collapse:collapse}
th,td{text-align:left;padding:.25rem .75rem;border-bottom:1px solid #ddd;vertical-align:top}code{font-size:12px}
.up{color:#176f2c}.down{color:#b3261e}.unknown{color:#8a6100}
@media(prefers-color-scheme:dark){body{background:#1b1b1b;color:#ddd}a{color:#8ab4f8}th,td{border-color:#444}.up{color:#7fd18b}.down{color:#ff8a80}}</style>
</head><body>{{template "body" .}}</body></html>`
	return template.Must(template.Must(template.New(name).Parse(frame)).Parse(body))
}

type indexPage struct {
	Version, Degraded string
	Damage            []string
}

func (s *Store) serveIndex(w http.ResponseWriter, _ *http.Request) {
	render(w, page("index", `{{define "title"}}Vitrine metrics{{end}}{{define "body"}}<h1>Vitrine metrics</h1>
<p>This is the HTTP API of Prometheus, version {{.Version}}. Point Grafana or any other client of Prometheus here.</p>
{{with .Degraded}}<p class="down">{{.}}</p>{{end}}{{range .Damage}}<p class="down">{{.}}</p>{{end}}
<ul><li><a href="targets">targets</a>: what is scraped, and how it went</li>
<li><a href="metrics">metrics</a> of this store itself</li>
<li><a href="api/v1/label/__name__/values">metric names</a>, <a href="api/v1/rules">rules</a>, <a href="api/v1/alerts">alerts</a>, <a href="api/v1/status/tsdb">storage</a></li></ul>
{{end}}`), indexPage{s.opts.Version, s.Degraded(), s.Damage()})
}

type (
	jobRow struct {
		Job     string
		Up, All int
		Targets []targetRow
	}
	targetRow struct {
		URL, Health, Error string
		Labels             string
		Age, Duration      string
	}
)

func (s *Store) serveTargets(w http.ResponseWriter, _ *http.Request) {
	var jobs []jobRow
	for job, targets := range s.scraper.TargetsActive() {
		row := jobRow{Job: job, All: len(targets)}
		for _, t := range targets {
			r := targetRow{
				URL: t.URL().String(), Health: string(t.Health()),
				Labels: t.Labels(labels.NewBuilder(labels.EmptyLabels())).String(),
			}
			if err := t.LastError(); err != nil {
				r.Error = err.Error()
			}
			if at := t.LastScrape(); !at.IsZero() {
				r.Age = time.Since(at).Truncate(100*time.Millisecond).String() + " ago"
				r.Duration = t.LastScrapeDuration().Truncate(10 * time.Microsecond).String()
			}
			if r.Health == "up" {
				row.Up++
			}
			row.Targets = append(row.Targets, r)
		}
		slices.SortFunc(row.Targets, func(a, b targetRow) int { return strings.Compare(a.URL+a.Labels, b.URL+b.Labels) })
		jobs = append(jobs, row)
	}
	slices.SortFunc(jobs, func(a, b jobRow) int { return cmp.Compare(a.Job, b.Job) })
	render(w, page("targets", `{{define "title"}}Targets{{end}}{{define "body"}}<h1>Targets</h1>
{{range .}}<h2>{{.Job}} ({{.Up}}/{{.All}} up)</h2><table>
<tr><th>Endpoint</th><th>State</th><th>Labels</th><th>Last scrape</th><th>Duration</th><th>Error</th></tr>
{{range .Targets}}<tr><td><a href="{{.URL}}">{{.URL}}</a></td><td class="{{.Health}}">{{.Health}}</td><td><code>{{.Labels}}</code></td>
<td>{{.Age}}</td><td>{{.Duration}}</td><td>{{.Error}}</td></tr>
{{end}}</table>{{else}}<p>No targets yet: nothing runs in this mesh, or it has only just started.</p>{{end}}{{end}}`), jobs)
}

// render writes a page. Its content comes from labels and errors, which others
// choose: html/template escapes it, and nothing may be loaded or run.
func render(w http.ResponseWriter, t *template.Template, data any) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	_ = t.Execute(w, data) // the client may be gone
}
