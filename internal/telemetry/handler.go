package telemetry

import (
	"net/http"
	"strconv"
	"strings"
)

// Handler serves the metrics to scrapers, in the format that the Accept header
// prefers. It may be mounted at any path.
func (r *Recorder) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "metrics are read with GET", http.StatusMethodNotAllowed)
			return
		}
		f := negotiate(req.Header.Values("Accept"))
		w.Header().Set("Content-Type", f.ContentType())
		w.Header().Set("Vary", "Accept")
		if req.Method == http.MethodHead {
			return
		}
		if err := r.WriteMetrics(w, f); err != nil {
			r.o.Log.Debug("write metrics to a scraper", "error", err)
		}
	})
}

// negotiate picks the format with the higher quality; the text format if
// neither is named. OpenMetrics versions other than 1.0.0 are not offered.
func negotiate(accept []string) Format {
	best, bestQ := FormatText, 0.0
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		media, params, _ := strings.Cut(part, ";")
		var f Format
		switch strings.ToLower(strings.TrimSpace(media)) {
		case "application/openmetrics-text":
			f = FormatOpenMetrics
		case "text/plain", "text/*", "*/*":
			f = FormatText
		default:
			continue
		}
		q, version := 1.0, ""
		for p := range strings.SplitSeq(params, ";") {
			k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
			switch strings.ToLower(k) {
			case "q":
				if n, err := strconv.ParseFloat(v, 64); err == nil {
					q = n
				}
			case "version":
				version = strings.Trim(v, `"`)
			}
		}
		if f == FormatOpenMetrics && version != "" && version != "1.0.0" {
			continue
		}
		if q > bestQ {
			best, bestQ = f, q
		}
	}
	return best
}
