package admin

import (
	"bytes"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

func (s *Server) prometheus(w http.ResponseWriter, req *http.Request) { s.o.Scrape.ServeHTTP(w, req) }

// statsQuery is what a request for /stats asks for.
type statsQuery struct {
	filter   *regexp.Regexp
	usedOnly bool
	kind     string // Counters, Gauges, Histograms; "" is all
}

func (s *Server) stats(w http.ResponseWriter, req *http.Request) {
	q := req.URL.Query()
	format := q.Get("format")
	if format == "prometheus" {
		s.prometheus(w, req)
		return
	}
	filter, err := regexp.Compile(q.Get("filter"))
	if err != nil {
		http.Error(w, "filter: "+err.Error(), http.StatusBadRequest)
		return
	}
	query := statsQuery{filter: filter, usedOnly: q.Has("usedonly"), kind: q.Get("type")}
	if !slices.Contains([]string{"", "All", "Counters", "Gauges", "Histograms"}, query.kind) {
		http.Error(w, fmt.Sprintf("type %q: use All, Counters, Gauges or Histograms", query.kind), http.StatusBadRequest)
		return
	}
	var text bytes.Buffer
	if err := s.o.Metrics.WriteText(&text); err != nil {
		http.Error(w, "collect metrics: "+err.Error(), http.StatusInternalServerError)
		return
	}
	list := append(parseStats(text.String()), clusterStats(s.clusterList())...)
	list = slices.DeleteFunc(list, func(st stat) bool { return !query.matches(&st) })
	slices.SortStableFunc(list, func(a, b stat) int { return strings.Compare(a.name, b.name) })
	switch format {
	case "", "text":
		write(w, statsText(list))
	case "json":
		writeJSON(w, statsJSON(list))
	default:
		http.Error(w, fmt.Sprintf("format %q: use text, json or prometheus", format), http.StatusBadRequest)
	}
}

func (q *statsQuery) matches(st *stat) bool {
	if q.kind != "" && q.kind != "All" && q.kind != st.kind.String()+"s" {
		return false
	}
	if q.usedOnly && !st.used() {
		return false
	}
	return q.filter.MatchString(st.name)
}

// clusterStats sums the numbers of a cluster's endpoints under Envoy's names.
func clusterStats(list []ClusterStatus) []stat {
	var out []stat
	for i := range list {
		c := &list[i]
		var sum, healthy HostStatus
		for j := range c.Hosts {
			h := &c.Hosts[j]
			if !h.Unhealthy {
				healthy.CxTotal++
			}
			sum.CxActive += h.CxActive
			sum.CxTotal += h.CxTotal
			sum.CxConnectFail += h.CxConnectFail
			sum.RqActive += h.RqActive
			sum.RqTotal += h.RqTotal
			sum.RqTimeouts += h.RqTimeouts
		}
		add := func(name string, kind statKind, v uint64) {
			out = append(out, stat{name: "cluster." + c.Name + "." + name, kind: kind, value: uint64s(v)})
		}
		add("membership_healthy", statGauge, healthy.CxTotal)
		add("membership_total", statGauge, uint64(len(c.Hosts)))
		add("upstream_cx_active", statGauge, sum.CxActive)
		add("upstream_cx_connect_fail", statCounter, sum.CxConnectFail)
		add("upstream_cx_total", statCounter, sum.CxTotal)
		add("upstream_rq_active", statGauge, sum.RqActive)
		add("upstream_rq_timeout", statCounter, sum.RqTimeouts)
		add("upstream_rq_total", statCounter, sum.RqTotal)
	}
	return out
}
