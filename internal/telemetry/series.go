package telemetry

import (
	"maps"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
)

// life is the part of a series that decides between observing and evicting.
// The top bit of n says that the series is retired; the rest counts entries.
type life struct {
	n       atomic.Uint64
	created int64 // Unix milliseconds

	// Used by the sweep only, under Recorder.mu.
	seen  uint64 // n at the last sweep
	since int64  // Now() at which n was first seen to be seen
}

const retired = 1 << 63

// enter counts one entry; false means that the series is retired, and the
// observation belongs into another one.
func (l *life) enter() bool { return l.n.Add(1)&retired == 0 }

// silent notes the time and reports whether nothing has entered since before
// limit; in that case the series is retired, exactly.
func (l *life) silent(now, limit int64) bool {
	n := l.n.Load()
	if n != l.seen || l.since == 0 {
		l.seen, l.since = n, now
		return false
	}
	return l.since <= limit && l.n.CompareAndSwap(n, n|retired)
}

// requestKey packs what tells apart the request series of one edge.
type requestKey uint64

const (
	codeBits = 10
	grpcBits = 5
	maxCode  = 999
	// maxGRPCStatus is the last status code of gRPC (UNAUTHENTICATED).
	maxGRPCStatus = 16
	grpcUnknown   = 2
)

// keyOf folds values that cannot occur into ones that can: a status code of
// more than three digits is 0 (no valid response), a gRPC status beyond those
// defined is UNKNOWN, as gRPC clients take it.
func keyOf(p RequestProtocol, code int, grpcStatus int, f Flags) requestKey {
	if code < 0 || code > maxCode {
		code = 0
	}
	switch {
	case p != GRPC:
		grpcStatus = -1
	case grpcStatus < 0:
		grpcStatus = InferGRPC(code)
	case grpcStatus > maxGRPCStatus:
		grpcStatus = grpcUnknown
	}
	return requestKey(p&1) | requestKey(grpcStatus+1)<<1 | requestKey(code)<<(1+grpcBits) |
		requestKey(f&(flagEnd-1))<<(1+grpcBits+codeBits)
}

// InferGRPC is the gRPC status that follows from an HTTP status when the
// response carries none; -1 when there is no response (code 0). The mapping is
// that of gRPC's document "HTTP to gRPC status code mapping", as Envoy applies it
// (source/common/grpc/status.cc, httpToGrpcStatus).
func InferGRPC(code int) int {
	switch code {
	case 0:
		return -1
	case http.StatusBadRequest:
		return 13
	case http.StatusUnauthorized:
		return 16
	case http.StatusForbidden:
		return 7
	case http.StatusNotFound:
		return 12
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return 14
	}
	return grpcUnknown
}

func (k requestKey) labels(policy string) string {
	grpc := ""
	if s := int(k>>1&(1<<grpcBits-1)) - 1; s >= 0 {
		grpc = strconv.Itoa(s)
	}
	var b []byte
	b = appendLabel(b, "request_protocol", RequestProtocol(k&1).String())
	b = appendLabel(b, "response_code", strconv.Itoa(int(k>>(1+grpcBits)&(1<<codeBits-1))))
	b = appendLabel(b, "grpc_response_status", grpc)
	b = appendLabel(b, "response_flags", Flags(k>>(1+grpcBits+codeBits)).String())
	b = appendLabel(b, "connection_security_policy", policy)
	return string(b)
}

// requestSeries is istio_requests_total and the three histograms of one label
// set. The counter is life.n.
type requestSeries struct {
	life
	bounds *bounds
	tail   string // the last five labels, rendered
	sums   [3]atomic.Uint64
	counts [3][]atomic.Uint64 // one more than bounds: the last is +Inf
}

// The histograms of a requestSeries.
const (
	histDuration = iota // nanoseconds
	histRequest         // bytes
	histResponse        // bytes
)

// bounds are the upper bounds of a histogram. Read-only.
type bounds struct {
	nanos []uint64 // for durations, whatever unit they are written in
	bytes []uint64 // for numbers without a unit
	// le are the label values, with +Inf, by Format.
	le [2][]string
}

// newBounds takes bounds in a unit of time of so many nanoseconds, or in bytes.
func newBounds(upper []float64, nanosPerUnit float64) *bounds {
	b := &bounds{}
	for _, u := range upper {
		b.nanos = append(b.nanos, uint64(math.Round(u*nanosPerUnit)))
		b.bytes = append(b.bytes, uint64(u))
		// As Envoy prints them, and as OpenMetrics wants them: whole numbers with
		// a fraction.
		b.le[FormatText] = append(b.le[FormatText], strconv.FormatFloat(u, 'f', -1, 64))
		canonical := strconv.FormatFloat(u, 'g', -1, 64)
		if !strings.ContainsAny(canonical, ".e") {
			canonical += ".0"
		}
		b.le[FormatOpenMetrics] = append(b.le[FormatOpenMetrics], canonical)
	}
	for f := range b.le {
		b.le[f] = append(b.le[f], "+Inf")
	}
	return b
}

// bucket is the index of the first bound that v does not exceed.
func bucket(bounds []uint64, v uint64) int {
	for i, b := range bounds {
		if v <= b {
			return i
		}
	}
	return len(bounds)
}

func newRequestSeries(b *bounds, tail string, created int64) *requestSeries {
	s := &requestSeries{life: life{created: created}, bounds: b, tail: tail}
	n := len(b.nanos) + 1
	all := make([]atomic.Uint64, 3*n)
	for i := range s.counts {
		s.counts[i] = all[i*n : (i+1)*n : (i+1)*n]
	}
	return s
}

func (s *requestSeries) observe(nanos, received, sent uint64) {
	s.counts[histDuration][bucket(s.bounds.nanos, nanos)].Add(1)
	s.sums[histDuration].Add(nanos)
	s.counts[histRequest][bucket(s.bounds.bytes, received)].Add(1)
	s.sums[histRequest].Add(received)
	s.counts[histResponse][bucket(s.bounds.bytes, sent)].Add(1)
	s.sums[histResponse].Add(sent)
}

// tcpSeries are the four TCP counters of one label set. opened and closed
// differ by the connections that are open now.
type tcpSeries struct {
	life
	tail                           string // the last three labels, rendered
	opened, closed, sent, received atomic.Uint64
}

// messageSeries are the two gRPC message counters of an edge.
type messageSeries struct {
	life
	request, response atomic.Uint64
}

// enterRequest finds the series of k and enters it.
func (e *Edge) enterRequest(k requestKey) *requestSeries {
	if s := (*e.requests.Load())[k]; s != nil && s.enter() {
		return s
	}
	r := e.r
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.current(e)
	s := (*c.requests.Load())[k]
	if s == nil {
		s = newRequestSeries(r.bounds, k.labels(c.policy), r.creation())
		put(&c.requests, k, s)
	}
	if c != e {
		put(&e.requests, k, s)
	}
	s.enter() // cannot be retired: that needs r.mu
	return s
}

func (e *Edge) enterTCP(f Flags) *tcpSeries {
	if s := (*e.tcp.Load())[f]; s != nil && s.enter() {
		return s
	}
	r := e.r
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.current(e)
	s := (*c.tcp.Load())[f]
	if s == nil {
		var tail []byte
		tail = appendLabel(tail, "request_protocol", "tcp")
		tail = appendLabel(tail, "response_flags", f.String())
		tail = appendLabel(tail, "connection_security_policy", c.policy)
		s = &tcpSeries{life: life{created: r.creation()}, tail: string(tail)}
		put(&c.tcp, f, s)
	}
	if c != e {
		put(&e.tcp, f, s)
	}
	s.enter()
	return s
}

func (e *Edge) enterMessages() *messageSeries {
	if s := e.messages.Load(); s != nil && s.enter() {
		return s
	}
	r := e.r
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.current(e)
	s := c.messages.Load()
	if s == nil {
		s = &messageSeries{life: life{created: r.creation()}}
		c.messages.Store(s)
	}
	if c != e {
		e.messages.Store(s)
	}
	s.enter()
	return s
}

// put adds to a map that is copied on write.
func put[K comparable, V any](p *atomic.Pointer[map[K]V], k K, v V) {
	m := maps.Clone(*p.Load())
	m[k] = v
	p.Store(&m)
}

// drop removes from a map that is copied on write what del picks, and returns
// how many went.
func drop[K comparable, V any](p *atomic.Pointer[map[K]V], del func(V) bool) int {
	old := *p.Load()
	var gone []K
	for k, v := range old {
		if del(v) {
			gone = append(gone, k)
		}
	}
	if len(gone) == 0 {
		return 0
	}
	m := maps.Clone(old)
	for _, k := range gone {
		delete(m, k)
	}
	p.Store(&m)
	return len(gone)
}
