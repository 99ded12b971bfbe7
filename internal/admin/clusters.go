package admin

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// ClusterStatus is the state of one upstream cluster.
type ClusterStatus struct {
	Name  string
	EDS   bool // endpoints come from the control plane
	Hosts []HostStatus
}

// HostStatus is the state of one endpoint.
type HostStatus struct {
	Address   netip.AddrPort
	Hostname  string // the workload's key, if it is in the mesh
	Weight    uint32 // 0 means 1
	Unhealthy bool
	// CxActive and RqActive are gauges, the others count since the endpoint was added.
	CxActive, CxTotal, CxConnectFail                  uint64
	RqActive, RqTotal, RqSuccess, RqError, RqTimeouts uint64
}

// Limits that Istio sets for want of a DestinationRule, and Envoy's defaults for
// the other priority.
const (
	unlimited          = 4294967295
	highPriorityLimit  = 1024
	highPriorityRetry  = 3
	healthyFlags       = "healthy"
	unhealthyFlags     = "/failed_eds_health"
	unknownSuccessRate = "-1"
)

func (s *Server) clusterList() []ClusterStatus {
	if s.o.Clusters == nil {
		return nil
	}
	return s.o.Clusters.Clusters()
}

func (s *Server) clusters(w http.ResponseWriter, req *http.Request) {
	switch format := req.URL.Query().Get("format"); format {
	case "json":
		writeJSON(w, clustersJSON(s.clusterList()))
	case "", "text":
		write(w, clustersText(s.clusterList()))
	default:
		badFormat(w, format)
	}
}

func badFormat(w http.ResponseWriter, format string) {
	http.Error(w, fmt.Sprintf("format %q: use text or json", format), http.StatusBadRequest)
}

func clustersText(list []ClusterStatus) string {
	var b strings.Builder
	for i := range list {
		c := &list[i]
		line := func(parts ...string) {
			b.WriteString(c.Name + "::" + strings.Join(parts, "::") + "\n")
		}
		line("observability_name", c.Name)
		for _, p := range []struct {
			name         string
			limit, retry uint64
		}{{"default_priority", unlimited, unlimited}, {"high_priority", highPriorityLimit, highPriorityRetry}} {
			line(p.name, "max_connections", uint64s(p.limit))
			line(p.name, "max_pending_requests", uint64s(p.limit))
			line(p.name, "max_requests", uint64s(p.limit))
			line(p.name, "max_retries", uint64s(p.retry))
		}
		line("added_via_api", "true")
		if c.EDS {
			line("eds_service_name", c.Name)
		}
		for j := range c.Hosts {
			hostText(line, &c.Hosts[j])
		}
	}
	return b.String()
}

func hostText(line func(...string), h *HostStatus) {
	addr := h.Address.String()
	for _, stat := range h.stats() {
		line(addr, stat.name, uint64s(stat.value))
	}
	flags := healthyFlags
	if h.Unhealthy {
		flags = unhealthyFlags
	}
	line(addr, "hostname", h.Hostname)
	line(addr, "health_flags", flags)
	line(addr, "weight", uint64s(uint64(max(h.Weight, 1))))
	line(addr, "region", "")
	line(addr, "zone", "")
	line(addr, "sub_zone", "")
	line(addr, "canary", "false")
	line(addr, "priority", "0")
	line(addr, "success_rate", unknownSuccessRate)
	line(addr, "local_origin_success_rate", unknownSuccessRate)
}

// hostStat is one number of an endpoint.
type hostStat struct {
	name  string
	gauge bool
	value uint64
}

// stats lists the numbers in the order of Envoy's text.
func (h *HostStatus) stats() []hostStat {
	return []hostStat{
		{"cx_active", true, h.CxActive},
		{"cx_connect_fail", false, h.CxConnectFail},
		{"cx_total", false, h.CxTotal},
		{"rq_active", true, h.RqActive},
		{"rq_error", false, h.RqError},
		{"rq_success", false, h.RqSuccess},
		{"rq_timeout", false, h.RqTimeouts},
		{"rq_total", false, h.RqTotal},
	}
}

func uint64s(v uint64) string { return strconv.FormatUint(v, 10) }

// The JSON form of envoy.admin.v3.Clusters. As in protobuf JSON, 64-bit numbers
// are strings and defaults are left out.
type (
	clustersDump struct {
		Statuses []clusterDump `json:"cluster_statuses"`
	}
	clusterDump struct {
		Name       string       `json:"name"`
		ViaAPI     bool         `json:"added_via_api"`
		Hosts      []hostDump   `json:"host_statuses,omitempty"`
		Circuit    circuitsDump `json:"circuit_breakers"`
		Observable string       `json:"observability_name"`
		EDSName    string       `json:"eds_service_name,omitempty"`
	}
	circuitsDump struct {
		Thresholds []thresholdDump `json:"thresholds"`
	}
	thresholdDump struct {
		Priority string `json:"priority,omitempty"`
		Conns    uint32 `json:"max_connections"`
		Pending  uint32 `json:"max_pending_requests"`
		Requests uint32 `json:"max_requests"`
		Retries  uint32 `json:"max_retries"`
	}
	hostDump struct {
		Address  addressDump `json:"address"`
		Stats    []statDump  `json:"stats"`
		Health   healthDump  `json:"health_status"`
		Weight   uint32      `json:"weight"`
		Hostname string      `json:"hostname,omitempty"`
		Locality struct{}    `json:"locality"`
	}
	addressDump struct {
		Socket socketDump `json:"socket_address"`
	}
	socketDump struct {
		Address string `json:"address"`
		Port    uint16 `json:"port_value"`
	}
	statDump struct {
		Type  string `json:"type,omitempty"` // COUNTER is the default
		Value string `json:"value,omitempty"`
		Name  string `json:"name"`
	}
	healthDump struct {
		EDS string `json:"eds_health_status"`
	}
)

func addressOf(a netip.AddrPort) addressDump {
	return addressDump{socketDump{a.Addr().String(), a.Port()}}
}

func clustersJSON(list []ClusterStatus) clustersDump {
	out := clustersDump{Statuses: []clusterDump{}}
	for i := range list {
		c := &list[i]
		d := clusterDump{Name: c.Name, ViaAPI: true, Observable: c.Name, Circuit: circuitsDump{[]thresholdDump{
			{"", unlimited, unlimited, unlimited, unlimited},
			{"HIGH", highPriorityLimit, highPriorityLimit, highPriorityLimit, highPriorityRetry},
		}}}
		if c.EDS {
			d.EDSName = c.Name
		}
		for j := range c.Hosts {
			d.Hosts = append(d.Hosts, hostJSON(&c.Hosts[j]))
		}
		out.Statuses = append(out.Statuses, d)
	}
	return out
}

func hostJSON(h *HostStatus) hostDump {
	d := hostDump{
		Address: addressOf(h.Address), Weight: max(h.Weight, 1), Hostname: h.Hostname,
		Health: healthDump{EDS: "HEALTHY"},
	}
	if h.Unhealthy {
		d.Health = healthDump{EDS: "UNHEALTHY"}
	}
	for _, stat := range h.stats() {
		sd := statDump{Name: stat.name}
		if stat.gauge {
			sd.Type = "GAUGE"
		}
		if stat.value != 0 {
			sd.Value = uint64s(stat.value)
		}
		d.Stats = append(d.Stats, sd)
	}
	return d
}
