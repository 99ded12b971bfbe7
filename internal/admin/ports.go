package admin

import (
	"net/http"

	"github.com/vitrine-mesh/vitrine/internal/loopback"
)

// AgentHandler answers on port 15020 as Istio's agent does: metrics for the
// scraper and readiness.
func (s *Server) AgentHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /stats/prometheus", s.o.Scrape)
	mux.Handle("GET /metrics", s.o.Scrape)
	mux.Handle("GET /healthz/ready", s.o.Readiness)
	return s.guard(mux)
}

// HealthHandler answers on port 15021: readiness only.
func (s *Server) HealthHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz/ready", s.o.Readiness)
	return s.guard(mux)
}

// StatsHandler answers on port 15090: metrics only.
func (s *Server) StatsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /stats/prometheus", s.o.Scrape)
	return s.guard(mux)
}

// guard keeps web pages away from handlers that ask for no password: see
// package loopback.
func (s *Server) guard(next http.Handler) http.Handler {
	return loopback.Guard(next, s.o.Self.IP, s.o.Self.CaseIP, s.o.Self.CaseIP6)
}
