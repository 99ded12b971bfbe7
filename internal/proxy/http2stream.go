//lint:file-ignore SA1019 see http2.go
//nolint:staticcheck // as above, for golangci-lint
package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/vitrine-mesh/vitrine/internal/proxy/http1"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

const (
	h2Version  = "HTTP/2"
	h2FrameLen = 9 // header of a frame
	// h2FieldLen is what a field line takes beside name and value when it is
	// written out: one byte of kind, two of lengths.
	h2FieldLen = 3
)

// Failures that only multiplexed streams have.
//
//nolint:gochecknoglobals // immutable table
var (
	failRemoteReset = &failure{503, telemetry.FlagUR, "upstream_reset_before_response_started{remote_reset}", "upstream connect error or disconnect/reset before headers. reset reason: remote reset"}
	// failDeadline is told to gRPC as such: see overdue.
	failDeadline = &failure{503, telemetry.FlagUR, "upstream_reset_before_response_started{remote_reset}", "upstream reset the stream when the deadline of the call had passed"}
	failRefused  = &failure{503, telemetry.FlagUR, "upstream_reset_before_response_started{remote_refused_stream_reset}", "upstream connect error or disconnect/reset before headers. reset reason: remote refused stream reset"}
)

// h2stream is one request on an HTTP/2 connection. The goroutine of the stream
// owns it; the request body is read by the upstream's, which touches only what mu
// guards.
//
// Bytes are counted as they are before HPACK: each field as name, value and three
// bytes, nine for each frame of at most 16 KiB of data. Real heads are smaller,
// by what the dynamic tables save.
type h2stream struct {
	s      *h2conn
	w      http.ResponseWriter
	r      *http.Request
	opened int64 // telemetry.Now() when the head began to arrive
	head   Head
	routed routed
	rec    telemetry.Record
	body   *h2body

	mu       sync.Mutex
	finished bool        // rec is no longer ours
	received uint64      // bytes of the request
	asked    grpcScanner // messages of the request

	interims h2interims
	answered grpcScanner   // messages of the response
	sent     bool          // the response head has gone to the client
	code     http2.ErrCode // with which the stream is reset, if it is
}

// serve handles the request; it reports whether the stream has to be reset.
func (x *h2stream) serve(ctx context.Context) (reset bool) {
	defer x.finish()
	err := x.begin()
	x.s.mu.Lock()
	x.s.refresh()
	if err == nil {
		x.routed = x.s.route(&x.head)
	} else {
		x.routed.destination = x.s.unrouted(x.head.Authority)
	}
	x.s.mu.Unlock()
	x.rec.Edge, x.rec.Route = x.routed.edge, x.routed.route
	if reject, ok := errors.AsType[http1.RejectError](err); ok {
		x.s.p.o.Recorder.Rejected(reject.Error())
		return x.fail(&failure{reject.Status(), telemetry.FlagDPE, reject.Error(), reject.Error()})
	}
	if x.routed.failure != nil {
		return x.fail(x.routed.failure)
	}
	if x.head.GRPC {
		x.rec.Live()
	}
	x.rec.Cluster, x.rec.Upstream = x.routed.cluster.Name, x.routed.endpoint.Addr()
	x.routed.endpoint.Enter()
	defer x.leave()
	if x.routed.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, x.routed.timeout)
		defer cancel()
	}
	return x.exchange(ctx)
}

// leave ends the request at its endpoint, the last one that was tried.
func (x *h2stream) leave() {
	const ours = telemetry.FlagUF | telemetry.FlagUC | telemetry.FlagUR | telemetry.FlagUT | telemetry.FlagUPE
	e := x.routed.endpoint
	switch {
	case x.rec.Code >= http.StatusInternalServerError, x.rec.Flags&ours != 0:
		e.Failed(x.rec.Flags&telemetry.FlagUT != 0)
	case x.rec.Code == 0:
		e.Abandoned()
	}
	e.Leave()
}

// begin makes the head and the record. An error means a path that is refused.
func (x *h2stream) begin() error {
	r := x.r
	path, err := []byte(r.RequestURI), error(nil)
	if r.Method != http.MethodConnect && len(path) > 0 && path[0] == '/' {
		var p []byte
		if p, err = http1.NormalizePath(path); err == nil {
			path = p
		}
	}
	id := r.Header.Get("X-Request-Id")
	if id == "" {
		id = string(appendRequestID(nil))
		r.Header.Set("X-Request-Id", id)
	}
	x.head = Head{
		Method: []byte(r.Method), Authority: []byte(r.Host), Path: path,
		UserAgent: []byte(r.Header.Get("User-Agent")), RequestID: []byte(id),
		GRPC: isGRPC([]byte(r.Header.Get("Content-Type"))),
	}
	x.rec = x.s.p.o.Recorder.Begin(x.s.dir, x.opened)
	x.rec.SetRequest(x.head.Method, x.head.Path, x.head.Authority, x.head.UserAgent)
	x.rec.SetRequestID(x.head.RequestID)
	if from := r.Header.Get("X-Forwarded-For"); from != "" {
		x.rec.SetForwardedFor([]byte(from))
	}
	x.rec.Version = h2Version
	x.rec.Downstream, x.rec.DownstreamLocal = x.s.source, x.s.local
	if x.head.GRPC {
		x.rec.Protocol = telemetry.GRPC
	}
	x.received = h2FrameLen + fieldBytes(r.Header) +
		uint64(len(r.Method)+len(r.Host)+len(r.RequestURI)+len(":method:scheme:authority:pathhttp")+4*h2FieldLen)
	return err
}

// finish ends the record, once, whatever happened.
func (x *h2stream) finish() {
	x.mu.Lock()
	x.finished = true
	x.rec.BytesReceived = x.received
	x.mu.Unlock()
	x.rec.Finish()
}

// onRequestData accounts for bytes that came from the client.
func (x *h2stream) onRequestData(p []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.finished { // the stream is over, its record may serve another one
		return
	}
	x.received += dataBytes(len(p))
	if x.head.GRPC {
		x.rec.AddRequestMessages(x.asked.scan(p))
	}
}

// exchange sends the request and passes on the response.
func (x *h2stream) exchange(ctx context.Context) (reset bool) {
	out, err := x.request(ctx)
	if err != nil {
		return x.fail(failUpstream)
	}
	start := telemetry.Now()
	res, err := x.send(ctx, out)
	x.interims.settle()
	if err != nil {
		return x.broke(ctx, err)
	}
	x.rec.UpstreamWait = time.Duration(telemetry.Now() - start)
	if x.body != nil {
		x.body.forget()
	}
	defer res.Body.Close()
	return x.respond(ctx, res)
}

// send sends the request and waits for the head of the response. If there is no
// connection to be had, it tries other endpoints.
func (x *h2stream) send(ctx context.Context, out *http.Request) (*http.Response, error) {
	for retries := 0; ; retries++ {
		res, err := x.s.p.h2sessionOf(&x.routed.destination).transport.RoundTrip(out)
		var dial *dialError
		if err == nil || !errors.As(err, &dial) || retries == connectRetries || x.r.Context().Err() != nil ||
			!x.s.elsewhere(ctx, &x.routed.destination, &x.rec, dial.err) {
			return res, err
		}
		if x.head.GRPC {
			x.rec.Live() // on the new edge
		}
		if x.body != nil {
			body, err := x.body.handle()
			if err != nil {
				return nil, err
			}
			out.Body = body
		}
	}
}

// request is what goes upstream.
func (x *h2stream) request(ctx context.Context) (*http.Request, error) {
	r, h := x.r, x.r.Header
	h.Del("X-Envoy-Peer-Metadata") // peers are known from their address, never from what a client says
	h.Del("X-Envoy-Peer-Metadata-Id")
	h.Del("X-Forwarded-Client-Cert")
	h.Del("Http2-Settings")
	if h.Get("X-Forwarded-Proto") == "" {
		h.Set("X-Forwarded-Proto", "http")
	}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = []string{""} // none, instead of the library's
	}
	host := r.Host
	if host == "" {
		host = x.routed.endpoint.Addr().String()
	}
	target := &url.URL{Scheme: "http", Host: x.routed.endpoint.Addr().String()}
	if r.Method != http.MethodConnect {
		// Opaque keeps the path byte for byte.
		target.Opaque = "//" + host + string(x.head.Path)
	}
	ctx = context.WithValue(ctx, h2callKey{}, &h2call{dest: &x.routed.destination})
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error { return x.interims.pass(x.w, code, http.Header(h)) },
		GotConn:        func(got httptrace.GotConnInfo) { x.rec.UpstreamLocal = upstream.LocalAddr(got.Conn) },
	})
	out := (&http.Request{
		Method: r.Method, URL: target, Host: host, Header: h, Trailer: r.Trailer, ContentLength: r.ContentLength,
		Proto: "HTTP/2.0", ProtoMajor: 2,
	}).WithContext(ctx)
	if r.ContentLength != 0 {
		x.body = newH2Body(r.Body, x.onRequestData)
		var err error
		if out.Body, err = x.body.handle(); err != nil {
			return nil, err
		}
		out.GetBody = x.body.handle
	}
	return out, nil
}
