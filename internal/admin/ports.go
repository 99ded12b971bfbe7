package admin

import "net/http"

// AgentHandler answers on port 15020 as Istio's agent does: metrics for the
// scraper and readiness.
func (s *Server) AgentHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /stats/prometheus", s.o.Scrape)
	mux.Handle("GET /metrics", s.o.Scrape)
	mux.Handle("GET /healthz/ready", s.o.Readiness)
	return mux
}

// HealthHandler answers on port 15021: readiness only.
func (s *Server) HealthHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz/ready", s.o.Readiness)
	return mux
}

// StatsHandler answers on port 15090: metrics only.
func (s *Server) StatsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /stats/prometheus", s.o.Scrape)
	return mux
}
