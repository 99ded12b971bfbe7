package telemetry

import (
	"cmp"
	"maps"
	"slices"
	"sync/atomic"
)

// directions are the values of the direction label by mesh.Direction.
func directions() [2]string { return [2]string{"outbound", "inbound"} }

// writeSelf writes the proxy's metrics about itself.
func (r *Recorder) writeSelf(x *exposition) {
	m := &r.self
	none := labels{}
	var build []byte
	build = appendLabel(build, "component", "proxy")
	build = appendLabel(build, "tag", cmp.Or(r.o.Version, "unknown"))
	x.family("istio_build", gaugeKind, "Version of the component; always 1.")
	x.uint("istio_build", labels{tail: string(build)}, 1)

	r.writeNetwork(x)

	byDirection := func(name, help string, v *[2]atomic.Int64) {
		x.family(name, gaugeKind, help)
		for d, value := range directions() {
			x.float(name, direction(value), float64(v[d].Load()))
		}
	}
	byDirection("vitrine_requests_in_flight", "Requests begun and not finished.", &m.inFlight)
	byDirection("vitrine_connections_open", "Opaque TCP connections begun and not finished.", &m.openConns)

	x.family("vitrine_proxy_request_seconds", histogramKind, "Time that requests spent in this proxy: their duration without the wait for the upstream.")
	for d, value := range directions() {
		h := &m.proxyTime[d]
		x.histogram("vitrine_proxy_request_seconds", direction(value), h.bounds, h.counts, &h.sum, 1e9, r.started)
	}
	x.vec("vitrine_http1_rejects_total", "HTTP messages refused because they were malformed or ambiguous; those of HTTP/2 by the library, without a closer reason.", "reason", &m.rejects)
	x.vec("vitrine_protocol_detection_total", "Connections by what their first bytes were.", "result", &m.detections)
	x.family("vitrine_protocol_detection_seconds", histogramKind, "Time until the protocol of a connection was known.")
	x.histogram("vitrine_protocol_detection_seconds", none, m.detectTime.bounds, m.detectTime.counts, &m.detectTime.sum, 1e9, r.started)
	x.vec("vitrine_upstream_retries_total", "Requests sent to an upstream again, and opaque connections taken to another endpoint.", "reason", &m.retries)
	x.vec("vitrine_dns_answers_total", "Answers of the DNS server of the case.", "result", &m.dns)

	count := func(name, help string, v uint64) {
		x.family(name, counterKind, help)
		x.counter(name, none, v, r.started)
	}
	gauge := func(name, help string, v float64) {
		x.family(name, gaugeKind, help)
		x.float(name, none, v)
	}
	count("vitrine_drain_forced_closes_total", "Connections cut because the drain deadline passed.", m.forcedCloses.Load())
	count("vitrine_connections_refused_total", "Connections closed unserved because too many were open.", m.refusedConns.Load())
	gauge("vitrine_ready", "1 while the proxy accepts traffic for its program.", float64(m.ready.Load()))
	gauge("vitrine_xds_connected", "1 while there is a stream to the control plane.", float64(m.xdsConnected.Load()))
	gauge("vitrine_xds_config_version", "Version of the configuration in use; 0 before the first.", float64(m.configVersion.Load()))
	gauge("vitrine_xds_config_age_seconds", "Age of the configuration in use; 0 before the first.", since(m.configTime.Load()))
	count("vitrine_xds_configs_applied_total", "Configurations applied.", m.configsOK.Load())
	count("vitrine_xds_configs_rejected_total", "Configurations refused; the last good one stays in use.", m.configRejects.Load())

	edges, series := r.size()
	gauge("vitrine_telemetry_edges", "Edges kept.", float64(edges))
	gauge("vitrine_telemetry_series", "Label sets kept for requests, messages and TCP connections.", float64(series))
	count("vitrine_telemetry_evicted_series_total", "Label sets forgotten because they were silent.", m.evicted.Load())
	count("vitrine_telemetry_hosts_collapsed_total", "Times that a destination was named whose host became other because there were too many.", m.hostsCollapsed.Load())
	count("vitrine_telemetry_unattributed_total", "Requests and connections that ended without a known edge.", m.unattributed.Load())
	count("vitrine_telemetry_double_finish_total", "Second ends of one request or connection: errors of the proxy.", m.doubleFinish.Load())
	count("vitrine_access_log_entries_total", "Entries written to the access log.", m.logWritten.Load())
	count("vitrine_access_log_dropped_total", "Entries that the access log was too slow for.", m.logDropped.Load())
}

// writeNetwork writes the proxy's own traffic under cAdvisor's names, which the
// usual dashboards ask for. cAdvisor counts a pod's network as a whole; here the
// program and its proxy are two ends with networks of their own, so the proxy
// has a name of its own where cAdvisor has the pod's. What one side sends is
// passed on to the other: a proxy transmits what it receives.
func (r *Recorder) writeNetwork(x *exposition) {
	var tail []byte
	tail = appendLabel(tail, "container", "istio-proxy")
	tail = appendLabel(tail, "namespace", r.o.Self.Namespace)
	tail = appendLabel(tail, "pod", r.o.Self.Name+".istio-proxy")
	of := labels{tail: string(tail)}
	for _, name := range []string{"container_network_receive_bytes_total", "container_network_transmit_bytes_total"} {
		x.family(name, counterKind, "Bytes of requests, responses and connections that the proxy passed on.")
		x.counter(name, of, r.self.relayed.Load(), r.started)
	}
}

func direction(value string) labels {
	return labels{tail: string(appendLabel(nil, "direction", value))}
}

// size counts the edges with their label sets.
func (r *Recorder) size() (edges, series int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.edges {
		series += len(*e.requests.Load()) + len(*e.tcp.Load())
		if e.messages.Load() != nil {
			series++
		}
	}
	return len(r.edges), series
}

// vec writes a family with one label, sorted by its value.
func (x *exposition) vec(name, help, label string, v *counterVec) {
	values := map[string]*vecCounter{}
	for k, c := range v.m.Range {
		values[k.(string)] = c.(*vecCounter)
	}
	x.family(name, counterKind, help)
	for _, k := range slices.Sorted(maps.Keys(values)) {
		x.counter(name, labels{tail: string(appendLabel(nil, label, k))}, values[k].n.Load(), values[k].created)
	}
}
