package telemetry

import (
	"encoding/json"
	"io"
	"math/bits"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// Entry is one line of the access log.
type Entry struct {
	Time             time.Time // of the first byte
	Direction        mesh.Direction
	TCP              bool // a connection, not a request
	Method           string
	Path             string
	Authority        string
	UserAgent        string
	RequestID        string
	ForwardedFor     string
	Version          string // HTTP/1.1, HTTP/2
	Protocol         RequestProtocol
	Code             int
	GRPCStatus       int // -1 is none
	Flags            Flags
	Detail           string
	FailureReason    string
	BytesReceived    uint64
	BytesSent        uint64
	Duration         time.Duration
	UpstreamWait     time.Duration
	Upstream         netip.AddrPort
	UpstreamLocal    netip.AddrPort
	Downstream       netip.AddrPort
	DownstreamLocal  netip.AddrPort
	Service          string // destination_service of the edge
	Cluster          string
	Route            string
	SNI              string
	RequestMessages  uint64
	ResponseMessages uint64
}

// text holds copies of the request's strings, one after another.
type text struct {
	end [textFields]uint16
	buf [480]byte
}

// The fields of text, in the order in which they must be set.
const (
	textMethod = iota
	textPath
	textAuthority
	textUserAgent
	textRequestID
	textForwardedFor
	textFields
)

// textLimit is how much of each field is kept, in bytes.
func textLimit(field int) int {
	switch field {
	case textMethod:
		return 16
	case textPath:
		return 192
	case textUserAgent:
		return 80
	}
	return 64
}

func (t *text) reset() { t.end = [textFields]uint16{} }

// set stores field; the fields before it must have been set.
func (t *text) set(field int, v []byte) {
	start := uint16(0)
	for _, e := range t.end[:field] {
		start = max(start, e)
	}
	if limit := textLimit(field); len(v) > limit {
		v = v[:limit]
	}
	t.end[field] = start + uint16(copy(t.buf[start:], v))
}

func (t *text) get(field int) string {
	start := uint16(0)
	for _, e := range t.end[:field] {
		start = max(start, e)
	}
	if t.end[field] <= start {
		return ""
	}
	return string(t.buf[start:t.end[field]])
}

// accessLog keeps the latest accounts in a ring of slots. Adding swaps the new
// account in and recycles the one that was there; a reader takes an account
// out for the time of copying it. So nothing blocks and nothing is shared.
type accessLog struct {
	r     *Recorder
	slots []atomic.Pointer[account]
	mask  uint64
	next  atomic.Uint64 // sequence of the next account
	wake  chan struct{} // the writer has much to do

	reading sync.Mutex // one reader at a time
	written atomic.Uint64
	writes  bool
}

func newAccessLog(r *Recorder, o AccessLogOptions) *accessLog {
	n := 1 << bits.Len(uint(o.Size-1))
	return &accessLog{
		r: r, slots: make([]atomic.Pointer[account], n), mask: uint64(n - 1),
		wake: make(chan struct{}, 1), writes: o.Writer != nil,
	}
}

// add gives a finished account to the log.
func (l *accessLog) add(a *account) {
	a.seq = l.next.Add(1) - 1
	seq := a.seq
	if old := l.slots[seq&l.mask].Swap(a); old != nil {
		l.r.recycle(old)
	}
	if l.writes && seq-l.written.Load() > l.mask/2 {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// The outcomes of looking for an entry.
type readResult uint8

const (
	readOK      readResult = iota
	readMissing            // its writer has not put it in yet
	readGone               // overwritten
)

// read copies the account of a sequence number. The caller holds l.reading.
func (l *accessLog) read(seq uint64) (Entry, readResult) {
	slot := &l.slots[seq&l.mask]
	a := slot.Swap(nil)
	if a == nil {
		return Entry{}, readMissing
	}
	result := readOK
	switch {
	case a.seq < seq:
		result = readMissing
	case a.seq > seq:
		result = readGone
	}
	var e Entry
	if result == readOK {
		e = a.entry()
	}
	if !slot.CompareAndSwap(nil, a) {
		l.r.recycle(a)
	}
	return e, result
}

func (a *account) entry() Entry {
	e := Entry{
		Direction: a.direction, TCP: a.connType,
		Method: a.text.get(textMethod), Path: a.text.get(textPath), Authority: a.text.get(textAuthority),
		UserAgent: a.text.get(textUserAgent), RequestID: a.text.get(textRequestID),
		ForwardedFor: a.text.get(textForwardedFor),
		Version:      a.Version, Protocol: a.Protocol, Code: a.Code, GRPCStatus: a.GRPCStatus,
		Flags: a.Flags, Detail: a.Detail, FailureReason: a.FailureReason,
		BytesReceived: a.BytesReceived, BytesSent: a.BytesSent,
		Duration: time.Duration(max(a.End-a.Start, 0)), UpstreamWait: a.UpstreamWait,
		Upstream: a.Upstream, UpstreamLocal: a.UpstreamLocal,
		Downstream: a.Downstream, DownstreamLocal: a.DownstreamLocal,
		Cluster: a.Cluster, Route: a.Route, SNI: a.SNI,
		RequestMessages: a.requestMessages.Load(), ResponseMessages: a.responseMessages.Load(),
		Time: time.Unix(0, a.r.wallOffset.Load()+a.Start),
	}
	if a.Edge != nil {
		e.Service = a.Edge.service
	}
	return e
}

// AccessLog copies the last n entries that are still kept, oldest first. It is
// there whether lines are written or not, and costs nothing until it is called:
// tests hold what a proxy recorded by it.
func (r *Recorder) AccessLog(n int) []Entry {
	l := r.log
	l.reading.Lock()
	defer l.reading.Unlock()
	end := l.next.Load()
	n = max(0, min(n, len(l.slots)))
	start := end - min(end, uint64(n))
	out := make([]Entry, 0, end-start)
	for seq := start; seq < end; seq++ {
		if e, result := l.read(seq); result == readOK {
			out = append(out, e)
		}
	}
	return out
}

// drain writes the entries up to now as JSON lines. What was overwritten
// before is counted as dropped. An entry that is about to come ends it; the
// last drain waits for it a little.
func (l *accessLog) drain(w io.Writer, last bool) error {
	end := l.next.Load()
	from := l.written.Load()
	if kept := uint64(len(l.slots)); end-from > kept {
		l.r.self.logDropped.Add(end - from - kept)
		from = end - kept
		l.written.Store(from)
	}
	var line []byte
	for seq := from; seq < end; seq++ {
		e, result := l.await(seq, last)
		if result == readMissing && !last && end-seq < l.mask/2 {
			return nil
		}
		l.written.Store(seq + 1)
		if result != readOK {
			l.r.self.logDropped.Add(1)
			continue
		}
		line = append(e.appendJSON(line[:0]), '\n')
		if _, err := w.Write(line); err != nil {
			l.r.self.logDropped.Add(1)
			return err
		}
		l.r.self.logWritten.Add(1)
	}
	return nil
}

// await reads an entry; if wait is set, it gives the goroutine that is writing
// it time to do so.
func (l *accessLog) await(seq uint64, wait bool) (Entry, readResult) {
	for try := 0; ; try++ {
		l.reading.Lock()
		e, result := l.read(seq)
		l.reading.Unlock()
		if result != readMissing || !wait || try == 1000 {
			return e, result
		}
		runtime.Gosched()
	}
}

// appendJSON appends the entry as one JSON object with the 24 keys of Istio's
// default access log, in its order; null stands for what is not known.
func (e *Entry) appendJSON(b []byte) []byte {
	b = append(b, `{"start_time":"`...)
	b = e.Time.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	b = append(b, '"')
	b = appendString(b, "method", e.Method)
	b = appendString(b, "path", e.Path)
	b = appendString(b, "protocol", e.Version)
	b = appendInt(b, "response_code", int64(e.Code))
	b = appendString(b, "response_flags", e.Flags.String())
	b = appendString(b, "response_code_details", e.Detail)
	b = appendString(b, "connection_termination_details", "")
	b = appendString(b, "upstream_transport_failure_reason", e.FailureReason)
	b = appendInt(b, "bytes_received", int64(e.BytesReceived))
	b = appendInt(b, "bytes_sent", int64(e.BytesSent))
	b = appendInt(b, "duration", e.Duration.Milliseconds())
	if e.UpstreamWait > 0 {
		b = appendString(b, "upstream_service_time", strconv.FormatInt(e.UpstreamWait.Milliseconds(), 10))
	} else {
		b = appendString(b, "upstream_service_time", "")
	}
	b = appendString(b, "x_forwarded_for", e.ForwardedFor)
	b = appendString(b, "user_agent", e.UserAgent)
	b = appendString(b, "request_id", e.RequestID)
	b = appendString(b, "authority", e.Authority)
	b = appendAddr(b, "upstream_host", e.Upstream)
	b = appendString(b, "upstream_cluster", e.Cluster)
	b = appendAddr(b, "upstream_local_address", e.UpstreamLocal)
	b = appendAddr(b, "downstream_local_address", e.DownstreamLocal)
	b = appendAddr(b, "downstream_remote_address", e.Downstream)
	b = appendString(b, "requested_server_name", e.SNI)
	b = appendString(b, "route_name", e.Route)
	return append(b, '}')
}

func appendKey(b []byte, key string) []byte {
	b = append(b, ',', '"')
	b = append(b, key...)
	return append(b, '"', ':')
}

func appendString(b []byte, key, v string) []byte {
	b = appendKey(b, key)
	if v == "" {
		return append(b, "null"...)
	}
	quoted, err := json.Marshal(v)
	if err != nil { // cannot happen for a string
		return append(b, "null"...)
	}
	return append(b, quoted...)
}

func appendInt(b []byte, key string, v int64) []byte {
	return strconv.AppendInt(appendKey(b, key), v, 10)
}

func appendAddr(b []byte, key string, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return appendString(b, key, "")
	}
	return appendString(b, key, a.String())
}
