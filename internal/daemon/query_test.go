package daemon

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestGraphFromServersWithoutAnchored: most Prometheus-compatible servers do not
// know the modifier that our own store counts exactly with.
func TestGraphFromServersWithoutAnchored(t *testing.T) {
	for _, tt := range []struct {
		name     string
		answer   func(w http.ResponseWriter)
		anchored bool // of the queries for the graph
	}{
		{"Prometheus 2", func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:18: parse error: unexpected identifier \"anchored\""}`))
		}, false},
		{"VictoriaMetrics", func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = w.Write([]byte(`{"status":"error","errorType":"422","error":"error when parsing: unparsed data left"}`))
		}, false},
		{"our store", func(w http.ResponseWriter) {
			_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"vector","result":[]}}`))
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var mu sync.Mutex
			var asked []string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				query := r.FormValue("query")
				mu.Lock()
				asked = append(asked, query)
				mu.Unlock()
				if strings.Contains(query, "anchored") {
					tt.answer(w)
					return
				}
				_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"vector","result":[]}}`))
			}))
			defer server.Close()
			g, err := buildGraph(t.Context(), t.TempDir(), GraphQuery{URL: server.URL, Window: time.Minute})
			if err != nil || len(g.Edges) != 0 {
				t.Fatalf("graph %v, %v", g, err)
			}
			requests := 0
			for _, q := range asked {
				if strings.Contains(q, "increase(istio_requests_total[60000ms]") {
					requests++
					if got := strings.Contains(q, "anchored"); got != tt.anchored {
						t.Errorf("anchored %t: %s", got, q)
					}
				}
			}
			if requests != 1 {
				t.Errorf("asked %d times for the requests: %q", requests, asked)
			}
		})
	}
	// Nobody there: the error says so, and is not taken for ignorance.
	gone := httptest.NewServer(nil)
	gone.Close()
	if _, err := buildGraph(t.Context(), t.TempDir(), GraphQuery{URL: gone.URL, Window: time.Minute}); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error %v, want connection refused", err)
	}
}
