package telemetry

import (
	"sync"
	"sync/atomic"
	"time"
)

// selfMetrics are the metrics of the proxy about itself.
type selfMetrics struct {
	inFlight, openConns [2]atomic.Int64 // by direction
	proxyTime           [2]histogram    // by direction, nanoseconds
	detectTime          histogram       // nanoseconds

	relayed atomic.Uint64 // bytes of requests and connections, of both directions

	doubleFinish, unattributed, hostsCollapsed atomic.Uint64
	evicted, logDropped, logWritten            atomic.Uint64
	forcedCloses, refusedConns                 atomic.Uint64

	rejects, detections, retries, dns counterVec

	xdsConnected                            atomic.Int64
	configVersion, configRejects, configsOK atomic.Uint64
	configTime                              atomic.Int64 // Unix nanoseconds; 0 before the first
	ready                                   atomic.Int64
}

func (m *selfMetrics) init() {
	// Time that the proxy itself takes: microseconds to a second.
	proxy := []float64{25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1}
	for i := range m.proxyTime {
		m.proxyTime[i].init(proxy)
	}
	m.detectTime.init([]float64{100e-6, 500e-6, 1e-3, 5e-3, 10e-3, 50e-3, 100e-3, 500e-3, 1, 5})
}

// Rejected counts a malformed or forbidden HTTP/1 message. reason must be one
// of a fixed set.
func (r *Recorder) Rejected(reason string) { r.self.rejects.add(reason, r.started) }

// Detected counts the outcome of looking at the first bytes of a connection and
// the time it took, in seconds. result must be one of a fixed set.
func (r *Recorder) Detected(result string, seconds float64) {
	r.self.detections.add(result, r.started)
	r.self.detectTime.observe(uint64(max(0, min(seconds, 1e6)) * 1e9))
}

// Retried counts a request that was sent again, or an opaque connection that was
// taken to another endpoint. reason must be one of a fixed set.
func (r *Recorder) Retried(reason string) { r.self.retries.add(reason, r.started) }

// DNSAnswered counts an answer of the case's DNS by its result (the response
// code in lower case, or "forwarded").
func (r *Recorder) DNSAnswered(result string) { r.self.dns.add(result, r.started) }

// ForcedClose counts a connection that was cut when the drain deadline passed.
func (r *Recorder) ForcedClose() { r.self.forcedCloses.Add(1) }

// ConnectionRefused counts a connection that was closed unserved because too
// many were open.
func (r *Recorder) ConnectionRefused() { r.self.refusedConns.Add(1) }

// SetConnected says whether the proxy has a stream to the control plane.
func (r *Recorder) SetConnected(up bool) { r.self.xdsConnected.Store(boolGauge(up)) }

// SetReady says whether the proxy accepts traffic for its program.
func (r *Recorder) SetReady(ready bool) { r.self.ready.Store(boolGauge(ready)) }

// SetConfigVersion says which version of the configuration is in use; 0 is none.
func (r *Recorder) SetConfigVersion(version uint64) { r.self.configVersion.Store(version) }

// ConfigApplied says that a configuration is in use since now.
func (r *Recorder) ConfigApplied() {
	r.self.configTime.Store(time.Now().UnixNano())
	r.self.configsOK.Add(1)
}

// ConfigRejected counts a configuration that was refused; the last good one stays.
func (r *Recorder) ConfigRejected() { r.self.configRejects.Add(1) }

func boolGauge(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// counterVec counts by one label value. The values come from the code, but a
// bound keeps a mistake from growing without end.
type counterVec struct {
	m sync.Map // string -> *vecCounter
	n atomic.Int64
}

type vecCounter struct {
	n       atomic.Uint64
	created int64 // Unix milliseconds
}

const maxVecValues = 64

func (v *counterVec) add(value string, started int64) {
	if c, ok := v.m.Load(value); ok {
		c.(*vecCounter).n.Add(1)
		return
	}
	if v.n.Load() >= maxVecValues {
		value = otherHost
	}
	created := max(time.Now().UnixMilli()-creationLead, started)
	c, loaded := v.m.LoadOrStore(value, &vecCounter{created: created})
	if !loaded {
		v.n.Add(1)
	}
	c.(*vecCounter).n.Add(1)
}

// histogram counts durations in nanoseconds.
type histogram struct {
	bounds *bounds
	counts []atomic.Uint64
	sum    atomic.Uint64
}

// init sets the bounds, in seconds.
func (h *histogram) init(upper []float64) {
	h.bounds = newBounds(upper, 1e9)
	h.counts = make([]atomic.Uint64, len(upper)+1)
}

func (h *histogram) observe(nanos uint64) {
	h.counts[bucket(h.bounds.nanos, nanos)].Add(1)
	h.sum.Add(nanos)
}
