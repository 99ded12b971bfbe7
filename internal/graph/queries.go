package graph

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// partyLabels identify an edge in the metrics of one reporter.
const partyLabels = "reporter,source_workload,source_workload_namespace,source_app,source_version," +
	"destination_workload,destination_workload_namespace,destination_app,destination_version," +
	"destination_service,destination_service_name,destination_service_namespace"

// kind is the label that tells the metrics of one query apart.
const kindLabel = "vitrine_kind"

// Kinds of counters besides requests and durations.
const (
	kindRequestBytes     = "request_bytes"
	kindResponseBytes    = "response_bytes"
	kindTCPSent          = "tcp_sent"
	kindTCPReceived      = "tcp_received"
	kindTCPOpened        = "tcp_opened"
	kindRequestMessages  = "request_messages"
	kindResponseMessages = "response_messages"
)

// increase sums the increase of a metric over the window by labels, and leaves
// out what did not move.
func increase(metric, by string, o Options) string {
	modifier := " anchored"
	if o.Extrapolate {
		modifier = ""
	}
	return fmt.Sprintf("sum by (%s) (increase(%s[%dms]%s)) > 0", by, metric, o.Window.Milliseconds(), modifier)
}

func requestsQuery(o Options) string {
	return increase("istio_requests_total",
		partyLabels+",request_protocol,response_code,grpc_response_status,response_flags,connection_security_policy", o)
}

func durationsQuery(o Options) string {
	// Empty buckets are wanted too: they bound the others from below.
	q := increase("istio_request_duration_milliseconds_bucket", partyLabels+",request_protocol,le", o)
	return strings.TrimSuffix(q, " > 0")
}

// volumeQuery asks for everything else at once.
func volumeQuery(o Options) string {
	const protocol, security = ",request_protocol", ",connection_security_policy"
	parts := []struct{ kind, metric, by string }{
		{kindRequestBytes, "istio_request_bytes_sum", protocol},
		{kindResponseBytes, "istio_response_bytes_sum", protocol},
		{kindTCPSent, "istio_tcp_sent_bytes_total", security},
		{kindTCPReceived, "istio_tcp_received_bytes_total", security},
		{kindTCPOpened, "istio_tcp_connections_opened_total", security},
		{kindRequestMessages, "istio_request_messages_total", ""},
		{kindResponseMessages, "istio_response_messages_total", ""},
	}
	terms := make([]string, 0, len(parts))
	for _, p := range parts {
		terms = append(terms, fmt.Sprintf(`label_replace(%s, %q, %q, "", "")`, increase(p.metric, partyLabels+p.by, o), kindLabel, p.kind))
	}
	return strings.Join(terms, " or ")
}

// load fills in the tallies of all edges.
func (ts tallies) load(ctx context.Context, q Querier, o Options) error {
	samples, err := q.Query(ctx, requestsQuery(o), o.At)
	if err != nil {
		return err
	}
	for _, s := range samples {
		ts.of(s.Labels, protocolOf(s.Labels["request_protocol"]), lost(s.Labels)).addRequests(s)
	}
	if samples, err = q.Query(ctx, durationsQuery(o), o.At); err != nil {
		return err
	}
	if err := ts.addDurations(samples); err != nil {
		return err
	}
	if samples, err = q.Query(ctx, volumeQuery(o), o.At); err != nil {
		return err
	}
	for _, s := range samples {
		ts.addVolume(s)
	}
	return nil
}

// effectiveWindow is the time that the counts are about: the window, or from a
// target's last scrape before it to its last one within if that is longer, as after
// an outage of the control plane, since all that happened meanwhile is counted; or,
// if nothing was scraped before, from the start of the oldest process that is scraped
// to the last scrapes.
func effectiveWindow(ctx context.Context, q Querier, o Options) (time.Duration, error) {
	w := o.Window.Milliseconds()
	span, err := q.Query(ctx, fmt.Sprintf(
		"max(timestamp(up) - timestamp(up offset %dms)) or 0 * count(last_over_time(up[5m] offset %dms))", w, w), o.At)
	switch {
	case err != nil:
		return o.Window, err
	case len(span) > 0 && o.Extrapolate: // a plain increase() sees no outage
		return o.Window, nil
	case len(span) > 0:
		covered := time.Duration(span[0].Value * float64(time.Second))
		return max(covered, o.Window).Round(time.Millisecond), nil
	}
	age, err := q.Query(ctx, "avg(timestamp(up)) - min(process_start_time_seconds)", o.At)
	if err != nil || len(age) == 0 {
		return o.Window, err
	}
	covered := time.Duration(age[0].Value * float64(time.Second)).Round(time.Millisecond)
	return min(max(covered, time.Second), o.Window), nil
}

func protocolOf(label string) Protocol {
	switch p := Protocol(label); p {
	case ProtocolGRPC, ProtocolTCP:
		return p
	case ProtocolHTTP:
	}
	return ProtocolHTTP
}
