package admin

import (
	"errors"
	"html"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// Metrics writes all metrics of the proxy in Prometheus's text format 0.0.4.
type Metrics interface {
	WriteText(w io.Writer) error
}

// Config tells the configuration of the proxy.
type Config interface {
	// Current is the configuration in use, its version and the time it came; nil
	// before the first. It is shared and must not be changed.
	Current() (cfg *mesh.NodeConfig, version string, updated time.Time)
	// Resources encodes the configuration in use as Envoy resources, in a stable
	// order.
	Resources() ([]Resource, error)
}

// Clusters tells the state of upstream clusters.
type Clusters interface {
	// Clusters lists all clusters in a stable order. The caller owns the result.
	Clusters() []ClusterStatus
}

// LogLevel is the level of the proxy's log; *slog.LevelVar is one.
type LogLevel interface {
	Level() slog.Level
	Set(l slog.Level)
}

// Options say what an admin server shows. Self, Metrics, Scrape and Readiness
// are required; what else is nil is shown as empty or refused.
type Options struct {
	Self      mesh.Workload
	Version   string
	Started   time.Time
	Metrics   Metrics
	Scrape    http.Handler // serves metrics in the format the scraper prefers
	Readiness *Readiness
	Config    Config
	Clusters  Clusters
	Level     LogLevel
	// Quit asks the process to end gracefully. It must not block.
	Quit func()
	// FailHealth makes the health check fail (true) or pass again (false).
	FailHealth func(fail bool)
	Log        *slog.Logger // nil discards
}

func (o *Options) check() error {
	switch {
	case o.Metrics == nil:
		return errors.New("admin options: metrics are missing")
	case o.Scrape == nil:
		return errors.New("admin options: scrape handler is missing")
	case o.Readiness == nil:
		return errors.New("admin options: readiness is missing")
	}
	return nil
}

// Server answers administration requests.
type Server struct {
	o        Options
	commands []command
	byPath   map[string]command
	guarded  http.Handler
}

// command is one path of the admin.
type command struct {
	path  string
	post  bool // changes something: POST only
	about string
	serve http.HandlerFunc
}

// New makes the admin of one proxy.
func New(o Options) (*Server, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{o: o, byPath: map[string]command{}}
	s.commands = []command{
		{"/", false, "Admin home page", s.index},
		{"/certs", false, "print certs on machine", s.certs},
		{"/clusters", false, "upstream cluster status", s.clusters},
		{"/config_dump", false, "dump current configs (?include_eds, ?resource=, ?name_regex=)", s.configDump},
		{"/healthcheck/fail", true, "cause the server to fail health checks", s.healthFail},
		{"/healthcheck/ok", true, "cause the server to pass health checks", s.healthOK},
		{"/help", false, "print out list of admin commands", s.help},
		{"/listeners", false, "print listener info", s.listeners},
		{"/logging", true, "query/change logging levels (?level=)", s.logging},
		{"/memory", false, "print current allocation/heap usage", s.memory},
		{"/quitquitquit", true, "exit the server", s.quit},
		{"/ready", false, "print server state, return 200 if LIVE, otherwise return 503", s.ready},
		{"/runtime", false, "print runtime values", s.runtime},
		{"/server_info", false, "print server version/status information", s.serverInfo},
		{"/stats", false, "print server stats (?filter=regex, ?usedonly, ?type=, ?format=text|json|prometheus)", s.stats},
		{"/stats/prometheus", false, "print server stats in prometheus format", s.prometheus},
	}
	for _, c := range s.commands {
		s.byPath[c.path] = c
	}
	s.guarded = s.guard(http.HandlerFunc(s.dispatch))
	return s, nil
}

// ServeHTTP answers on port 15000.
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, max-age=0")
	h.Set("X-Content-Type-Options", "nosniff")
	s.guarded.ServeHTTP(w, req)
}

func (s *Server) dispatch(w http.ResponseWriter, req *http.Request) {
	path := req.URL.Path
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	c, ok := s.byPath[path]
	if !ok {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusNotFound)
		write(w, "invalid path. admin commands are:\n"+s.helpText())
		return
	}
	allowed := []string{http.MethodGet, http.MethodHead}
	if c.post {
		allowed = []string{http.MethodPost}
	}
	if !slices.Contains(allowed, req.Method) {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	if c.post && !mayChange(req) {
		http.Error(w, "only the user whose proxy this is, and root, may do that", http.StatusForbidden)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	c.serve(w, req)
}

func (s *Server) helpText() string {
	var b strings.Builder
	for _, c := range s.commands {
		b.WriteString("  " + c.path)
		if c.post {
			b.WriteString(" (POST)")
		}
		b.WriteString(": " + c.about + "\n")
	}
	return b.String()
}

func (s *Server) help(w http.ResponseWriter, _ *http.Request) {
	write(w, "admin commands are:\n"+s.helpText())
}

func (s *Server) index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=UTF-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; form-action 'none'")
	name := html.EscapeString(s.o.Self.Key())
	var b strings.Builder
	b.WriteString("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Vitrine proxy " + name + "</title>\n" +
		"<style>body{font:15px/1.5 system-ui,sans-serif;margin:2rem}td{padding:.2rem 1rem .2rem 0}code{font-size:14px}</style></head>\n" +
		"<body><h1>Vitrine proxy " + name + "</h1>\n<table>\n")
	for _, c := range s.commands {
		path := html.EscapeString(c.path)
		cell := `<a href="` + path + `"><code>` + path + `</code></a>`
		if c.post {
			cell = "<code>POST " + path + "</code>"
		}
		b.WriteString("<tr><td>" + cell + "</td><td>" + html.EscapeString(c.about) + "</td></tr>\n")
	}
	b.WriteString("</table></body></html>\n")
	write(w, b.String())
}

// write sends an answer; a client that went away is no error of ours.
func write(w io.Writer, body string) {
	_, _ = io.WriteString(w, body)
}
