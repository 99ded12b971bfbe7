package graph

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// party is a workload, or a service when Workload is mesh.Unknown.
type party struct {
	namespace string
	workload  string // mesh.Unknown for services and strangers
	version   string // mesh.Unknown if not known
	service   string // host; only for parties without a workload
	cluster   string // Passthrough or BlackHole cluster; only for those
}

// hop is what an edge is between.
type hop struct {
	source, destination party
	protocol            Protocol
}

// key identifies the tally of one reporter.
type key struct {
	hop
	service  string // host called; "" if not known
	reporter reporter
	// lost marks requests that the source reports and the destination cannot.
	lost bool
}

type reporter uint8

const (
	bySource reporter = iota
	byDestination
)

// tally is what was counted for one key.
type tally struct {
	app               [2]string // of source and destination
	requests, errors  float64
	codes             map[[2]string]float64 // by HTTP code and gRPC status
	flags             map[string]float64
	buckets           map[float64]float64 // cumulative, by upper bound in ms
	sent, received    float64             // bytes, seen from the source
	opened            float64
	msgSent, msgRecv  float64
	secured, secureOf float64 // mutual TLS: so much of so much
}

type tallies map[key]*tally

// keyOf is the key of the tally that a sample belongs to.
func keyOf(l map[string]string, protocol Protocol, lost bool) key {
	k := key{reporter: byDestination, lost: lost}
	if l["reporter"] == "source" {
		k.reporter = bySource
	}
	k.source = party{namespace: known(l["source_workload_namespace"]), workload: orUnknown(l["source_workload"]), version: orUnknown(l["source_version"])}
	k.destination = party{namespace: known(l["destination_workload_namespace"]), workload: orUnknown(l["destination_workload"]), version: orUnknown(l["destination_version"])}
	k.protocol, k.service = protocol, known(l["destination_service"])
	switch l["destination_service_name"] {
	case mesh.PassthroughCluster, mesh.InboundPassthroughCluster:
		// A workload's own address was called, by some name and port: no service.
		if k.destination.workload != mesh.Unknown {
			k.service = ""
		}
	}
	if k.source.workload == mesh.Unknown {
		k.source = party{namespace: k.source.namespace, workload: mesh.Unknown, version: mesh.Unknown}
	}
	if k.destination.workload == mesh.Unknown {
		k.destination = party{workload: mesh.Unknown, version: mesh.Unknown, service: k.service}
		switch name := l["destination_service_name"]; name {
		case mesh.PassthroughCluster, mesh.BlackHoleCluster, mesh.InboundPassthroughCluster:
			k.destination.cluster = name
		default:
			k.destination.namespace = known(l["destination_service_namespace"])
		}
	}
	return k
}

// of finds or makes the tally that a sample belongs to.
func (ts tallies) of(l map[string]string, protocol Protocol, lost bool) *tally {
	k := keyOf(l, protocol, lost)
	t := ts[k]
	if t == nil {
		t = newTally()
		ts[k] = t
	}
	for i, label := range [2]string{"source_app", "destination_app"} {
		if app := known(l[label]); app > t.app[i] { // the same whatever the order of samples
			t.app[i] = app
		}
	}
	return t
}

func newTally() *tally {
	return &tally{codes: map[[2]string]float64{}, flags: map[string]float64{}, buckets: map[float64]float64{}}
}

// lost reports whether a request never reached the destination's proxy, going
// by the flags of the source's (Envoy's response flags).
func lost(l map[string]string) bool {
	if l["reporter"] != "source" {
		return false
	}
	for flag := range strings.SplitSeq(l["response_flags"], ",") {
		switch flag {
		case "UF", "UH", "UO", "NR", "NC", "FI", "RL":
			return true
		}
	}
	return false
}

// isError: 5xx, no response or one that broke off, or a gRPC status other than OK. A gRPC call
// without a status failed before there was one, and is judged by its code.
func isError(protocol, code, grpcStatus, flags string) bool {
	if protocol == string(ProtocolGRPC) && grpcStatus != "" {
		return grpcStatus != "0"
	}
	return code == "0" || code == "" || (len(code) == 3 && code[0] == '5') || brokeOff(flags)
}

// brokeOff reports whether the destination failed to finish a response whose code was
// sent already, going by Envoy's response flags. A client that left (DC) is no error.
func brokeOff(flags string) bool {
	for flag := range strings.SplitSeq(flags, ",") {
		switch flag {
		case "UC", "UR", "UPE", "LR", "UT":
			return true
		}
	}
	return false
}

func (t *tally) addRequests(s Sample) {
	code, status := s.Labels["response_code"], s.Labels["grpc_response_status"]
	t.requests += s.Value
	if isError(s.Labels["request_protocol"], code, status, s.Labels["response_flags"]) {
		t.errors += s.Value
	}
	t.codes[[2]string{code, status}] += s.Value
	flags := s.Labels["response_flags"]
	if flags == "" {
		flags = "-"
	}
	t.flags[flags] += s.Value
	t.addSecurity(s)
}

// addSecurity counts mutual TLS, of which only destinations know.
func (t *tally) addSecurity(s Sample) {
	switch s.Labels["connection_security_policy"] {
	case "mutual_tls":
		t.secured += s.Value
		t.secureOf += s.Value
	case "none":
		t.secureOf += s.Value
	}
}

// addDurations adds the buckets of the edges that had requests.
func (ts tallies) addDurations(samples []Sample) error {
	keys := make([]key, len(samples))
	moved := map[key]bool{}
	for i, s := range samples {
		keys[i] = keyOf(s.Labels, protocolOf(s.Labels["request_protocol"]), false)
		if s.Value > 0 {
			moved[keys[i]] = true
		}
	}
	for i, s := range samples {
		if !moved[keys[i]] {
			continue
		}
		le, err := strconv.ParseFloat(s.Labels["le"], 64)
		if err != nil {
			return fmt.Errorf("bucket of a request duration: bound %q: %w", s.Labels["le"], err)
		}
		ts.of(s.Labels, keys[i].protocol, false).buckets[le] += s.Value
	}
	return nil
}

func (ts tallies) addVolume(s Sample) {
	protocol := protocolOf(s.Labels["request_protocol"])
	switch s.Labels[kindLabel] {
	case kindTCPSent, kindTCPReceived, kindTCPOpened:
		protocol = ProtocolTCP
	case kindRequestMessages, kindResponseMessages:
		protocol = ProtocolGRPC
	}
	t := ts.of(s.Labels, protocol, false)
	// The metrics are named from the destination's side: what a proxy sends to
	// its client, the source receives.
	switch s.Labels[kindLabel] {
	case kindRequestBytes:
		t.sent += s.Value
	case kindResponseBytes:
		t.received += s.Value
	case kindTCPReceived:
		t.sent += s.Value
		t.addSecurity(s)
	case kindTCPSent:
		t.received += s.Value
		t.addSecurity(s)
	case kindTCPOpened:
		t.opened += s.Value
		// Connections weigh next to nothing beside bytes.
		s.Value /= 1e9
		t.addSecurity(s)
	case kindRequestMessages:
		t.msgSent += s.Value
	case kindResponseMessages:
		t.msgRecv += s.Value
	}
}

// add adds the figures of o.
func (t *tally) add(o *tally) {
	for i := range t.app {
		t.app[i] = max(t.app[i], o.app[i])
	}
	t.requests += o.requests
	t.errors += o.errors
	for k, v := range o.codes {
		t.codes[k] += v
	}
	for k, v := range o.flags {
		t.flags[k] += v
	}
	for k, v := range o.buckets {
		t.buckets[k] += v
	}
	t.sent += o.sent
	t.received += o.received
	t.opened += o.opened
	t.msgSent += o.msgSent
	t.msgRecv += o.msgRecv
	t.secured += o.secured
	t.secureOf += o.secureOf
}

// known is a label value, or "" if it says that the value is not known.
func known(v string) string {
	if v == mesh.Unknown {
		return ""
	}
	return v
}

func orUnknown(v string) string {
	if v == "" {
		return mesh.Unknown
	}
	return v
}
