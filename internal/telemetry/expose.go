package telemetry

import (
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Format is a text format for metrics.
type Format uint8

// The formats.
const (
	// FormatText is Prometheus's text format 0.0.4.
	FormatText Format = iota
	// FormatOpenMetrics is OpenMetrics 1.0. Only it has creation times, which
	// let a scraper count a new series from zero.
	FormatOpenMetrics
)

// ContentType is the media type of the format.
func (f Format) ContentType() string {
	if f == FormatOpenMetrics {
		return "application/openmetrics-text; version=1.0.0; charset=utf-8"
	}
	return "text/plain; version=0.0.4; charset=utf-8"
}

// WriteText is WriteMetrics in FormatText.
func (r *Recorder) WriteText(w io.Writer) error { return r.WriteMetrics(w, FormatText) }

// WriteMetrics writes all metrics. It holds no lock that traffic needs while it
// renders. The order of families and series is fixed.
func (r *Recorder) WriteMetrics(w io.Writer, f Format) error {
	x := &exposition{w: w, format: f, buf: make([]byte, 0, flushSize+4096)}
	edges := r.snapshot()
	x.requests(edges)
	x.messages(edges)
	x.tcp(edges)
	r.writeSelf(x)
	writeProcess(x)
	if f == FormatOpenMetrics {
		x.raw("# EOF\n")
	}
	x.flush()
	return x.err
}

// edgeView is what one exposition shows of an edge, in order.
type edgeView struct {
	common   string
	id       string
	requests []*requestSeries
	tcp      []*tcpSeries
	messages *messageSeries
}

func (r *Recorder) snapshot() []edgeView {
	r.mu.Lock()
	if r.evictedUntil > 0 {
		r.evictedUntil = max(r.evictedUntil, time.Now().UnixMilli())
	}
	views := make([]edgeView, 0, len(r.edges))
	for _, e := range r.edges {
		if e.empty() {
			continue
		}
		views = append(views, edgeView{
			common: e.common, id: e.id, messages: e.messages.Load(),
			requests: slices.Collect(maps.Values(*e.requests.Load())),
			tcp:      slices.Collect(maps.Values(*e.tcp.Load())),
		})
	}
	r.mu.Unlock()
	slices.SortFunc(views, func(a, b edgeView) int { return strings.Compare(a.id, b.id) })
	for _, v := range views {
		slices.SortFunc(v.requests, func(a, b *requestSeries) int { return strings.Compare(a.tail, b.tail) })
		slices.SortFunc(v.tcp, func(a, b *tcpSeries) int { return strings.Compare(a.tail, b.tail) })
	}
	return views
}

const flushSize = 32 << 10

// exposition writes families one after another.
type exposition struct {
	w      io.Writer
	format Format
	buf    []byte
	err    error
}

func (x *exposition) flush() {
	if x.err == nil && len(x.buf) > 0 {
		_, x.err = x.w.Write(x.buf)
	}
	x.buf = x.buf[:0]
}

func (x *exposition) raw(s string) { x.buf = append(x.buf, s...) }

// family starts a family. name is that of the samples: a counter's ends in _total.
func (x *exposition) family(name, kind, help string) {
	if x.format == FormatOpenMetrics && kind == counterKind {
		name = strings.TrimSuffix(name, "_total")
	}
	x.raw("# HELP " + name + " " + help + "\n# TYPE " + name + " " + kind + "\n")
}

// The kinds of families.
const (
	counterKind   = "counter"
	gaugeKind     = "gauge"
	histogramKind = "histogram"
)

// labels of a sample: up to two rendered parts.
type labels struct{ common, tail string }

func (x *exposition) open(name, suffix string, l labels, le string) {
	if len(x.buf) > flushSize {
		x.flush()
	}
	b := x.buf
	b = append(b, name...)
	b = append(b, suffix...)
	if l.common != "" || l.tail != "" || le != "" {
		b = append(b, '{')
		sep := false
		for _, part := range [2]string{l.common, l.tail} {
			if part != "" && sep {
				b = append(b, ',')
			}
			b = append(b, part...)
			sep = sep || part != ""
		}
		if le != "" {
			if sep {
				b = append(b, ',')
			}
			b = append(b, `le="`...)
			b = append(b, le...)
			b = append(b, '"')
		}
		b = append(b, '}')
	}
	b = append(b, ' ')
	x.buf = b
}

func (x *exposition) uint(name string, l labels, v uint64) {
	x.open(name, "", l, "")
	x.buf = append(strconv.AppendUint(x.buf, v, 10), '\n')
}

func (x *exposition) float(name string, l labels, v float64) {
	x.open(name, "", l, "")
	x.buf = append(appendFloat(x.buf, v), '\n')
}

func appendFloat(b []byte, v float64) []byte { return strconv.AppendFloat(b, v, 'g', -1, 64) }

// counter writes a counter sample and, in OpenMetrics, since when it counts.
func (x *exposition) counter(name string, l labels, v uint64, createdMillis int64) {
	x.uint(name, l, v)
	x.created(strings.TrimSuffix(name, "_total"), l, createdMillis)
}

func (x *exposition) created(name string, l labels, millis int64) {
	if x.format != FormatOpenMetrics {
		return
	}
	x.open(name, "_created", l, "")
	x.buf = append(strconv.AppendFloat(x.buf, float64(millis)/1e3, 'f', 3, 64), '\n')
}

// histogram writes one histogram. counts are read once: what is written is
// consistent in itself. sumScale converts the sum's unit.
func (x *exposition) histogram(name string, l labels, b *bounds, counts []atomic.Uint64, sum *atomic.Uint64, sumScale float64, createdMillis int64) {
	var total uint64
	for i := range counts {
		total += counts[i].Load()
		x.open(name, "_bucket", l, b.le[x.format][i])
		x.buf = append(strconv.AppendUint(x.buf, total, 10), '\n')
	}
	x.open(name, "_sum", l, "")
	x.buf = append(appendFloat(x.buf, float64(sum.Load())/sumScale), '\n')
	x.open(name, "_count", l, "")
	x.buf = append(strconv.AppendUint(x.buf, total, 10), '\n')
	x.created(name, l, createdMillis)
}

func (x *exposition) requests(edges []edgeView) {
	found := false
	for i := range edges {
		found = found || len(edges[i].requests) > 0
	}
	if !found {
		return
	}
	each := func(f func(l labels, s *requestSeries)) {
		for i := range edges {
			for _, s := range edges[i].requests {
				f(labels{edges[i].common, s.tail}, s)
			}
		}
	}
	x.family("istio_requests_total", counterKind, "Requests handled.")
	each(func(l labels, s *requestSeries) {
		x.counter("istio_requests_total", l, s.n.Load()&^retired, s.created)
	})
	for h, m := range [3]struct {
		name, help string
		scale      float64
	}{
		histDuration: {"istio_request_duration_milliseconds", "Time from the first byte of the request to the last byte of the response, in milliseconds.", 1e6},
		histRequest:  {"istio_request_bytes", "Bytes received from the client per request, head and body.", 1},
		histResponse: {"istio_response_bytes", "Bytes sent to the client per request, head and body.", 1},
	} {
		x.family(m.name, histogramKind, m.help)
		each(func(l labels, s *requestSeries) {
			x.histogram(m.name, l, s.bounds, s.counts[h], &s.sums[h], m.scale, s.created)
		})
	}
}

func (x *exposition) messages(edges []edgeView) {
	write := func(name, help string, value func(*messageSeries) uint64) {
		started := false
		for i := range edges {
			s := edges[i].messages
			if s == nil {
				continue
			}
			if !started {
				x.family(name, counterKind, help)
				started = true
			}
			x.counter(name, labels{edges[i].common, ""}, value(s), s.created)
		}
	}
	write("istio_request_messages_total", "gRPC messages received from clients.",
		func(s *messageSeries) uint64 { return s.request.Load() })
	write("istio_response_messages_total", "gRPC messages sent to clients.",
		func(s *messageSeries) uint64 { return s.response.Load() })
}

func (x *exposition) tcp(edges []edgeView) {
	write := func(name, help string, value func(*tcpSeries) uint64) {
		started := false
		for i := range edges {
			for _, s := range edges[i].tcp {
				if !started {
					x.family(name, counterKind, help)
					started = true
				}
				x.counter(name, labels{edges[i].common, s.tail}, value(s), s.created)
			}
		}
	}
	write("istio_tcp_connections_opened_total", "TCP connections opened.",
		func(s *tcpSeries) uint64 { return s.opened.Load() })
	write("istio_tcp_connections_closed_total", "TCP connections closed.",
		func(s *tcpSeries) uint64 { return s.closed.Load() })
	write("istio_tcp_sent_bytes_total", "Bytes sent to clients over TCP connections.",
		func(s *tcpSeries) uint64 { return s.sent.Load() })
	write("istio_tcp_received_bytes_total", "Bytes received from clients over TCP connections.",
		func(s *tcpSeries) uint64 { return s.received.Load() })
}

// since is the age of a Unix time in nanoseconds, in seconds; 0 if there is none.
func since(unixNanos int64) float64 {
	if unixNanos == 0 {
		return 0
	}
	return time.Since(time.Unix(0, unixNanos)).Seconds()
}
