//lint:file-ignore SA1019 see http2.go
package proxy

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/net/http2"

	"github.com/vitrine-mesh/vitrine/internal/telemetry"
	"github.com/vitrine-mesh/vitrine/internal/upstream"
)

// respond passes the response on.
func (x *h2stream) respond(ctx context.Context, res *http.Response) (reset bool) {
	h := x.w.Header()
	maps.Copy(h, res.Header)
	// A key without values keeps the library from adding a field of its own.
	for _, k := range []string{"Date", "Content-Type", "Content-Length"} {
		if _, ok := h[k]; !ok {
			h[k] = nil
		}
	}
	x.rec.Detail = "via_upstream"
	x.sendHead(res.StatusCode, res.Header)
	if x.head.GRPC { // trailers-only responses carry it in the head
		x.rec.GRPCStatus = parseGRPCStatus(res.Header.Get("Grpc-Status"))
	}
	// With nothing to come, what ends the stream goes into the same frame as the
	// head: to gRPC that is the difference between an answer and an error.
	empty, body := res.ContentLength == 0 || x.r.Method == http.MethodHead, res.Body
	if res.StatusCode == http.StatusNotModified { // its Content-Length is of what it does not send
		empty, body = true, http.NoBody
	}
	if reset, done := x.copyBody(ctx, body, !empty); done {
		return reset
	}
	// One that was announced and never came must not be announced: the library would
	// leave the stream open for it.
	maps.DeleteFunc(res.Trailer, func(_ string, v []string) bool { return len(v) == 0 })
	for k, v := range res.Trailer {
		h[http.TrailerPrefix+k] = v
	}
	if len(res.Trailer) > 0 {
		x.rec.BytesSent += h2FrameLen + fieldBytes(res.Trailer)
		if s := parseGRPCStatus(res.Trailer.Get("Grpc-Status")); x.head.GRPC && s >= 0 {
			x.rec.GRPCStatus = s
		}
	}
	if x.r.Context().Err() != nil {
		return x.gone()
	}
	return false
}

// copyBody streams the response body, sending every piece at once, and the head
// before the first one if headFirst. done is set when the stream cannot go on.
func (x *h2stream) copyBody(ctx context.Context, body io.Reader, headFirst bool) (reset, done bool) {
	out, _ := x.w.(interface{ FlushError() error })
	if headFirst && out.FlushError() != nil {
		return x.gone(), true
	}
	var buf upstream.Buffer
	defer buf.Release()
	for {
		if !buf.MakeRoom() {
			buf.Skip(buf.Len()) // not reached: it is emptied below
		}
		n, err := body.Read(buf.Free())
		if n > 0 {
			p := buf.Free()[:n]
			if _, werr := x.w.Write(p); werr != nil {
				return x.gone(), true
			}
			x.rec.BytesSent += dataBytes(n)
			if x.head.GRPC {
				x.rec.AddResponseMessages(x.answered.scan(p))
			}
			// The last piece leaves with what ends the stream.
			if !errors.Is(err, io.EOF) && out.FlushError() != nil {
				return x.gone(), true
			}
			if n == len(buf.Free()) {
				buf.TakeLarge()
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return false, false
		default:
			return x.broke(ctx, err), true
		}
	}
}

// sendHead writes the response head into the library's buffer.
func (x *h2stream) sendHead(code int, h http.Header) {
	x.rec.Code, x.sent = code, true
	x.rec.BytesSent += h2FrameLen + fieldBytes(h) + uint64(len(":status200")+h2FieldLen)
	x.w.WriteHeader(code)
}

// gone ends a stream whose client is no longer there.
func (x *h2stream) gone() bool {
	x.rec.Flags |= telemetry.FlagDC
	x.rec.Detail = detailClientGone
	return true
}

// broke handles an error of the upstream or of the client, before or within the
// response.
func (x *h2stream) broke(ctx context.Context, err error) (reset bool) {
	var stream http2.StreamError
	var dial *dialError
	switch {
	case x.r.Context().Err() != nil, x.body != nil && x.body.failed() != nil:
		return x.gone()
	case expired(ctx):
		return x.fail(failTimeout)
	case errors.As(err, &dial):
		x.rec.FailureReason = err.Error()
		var timeout net.Error
		if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
			return x.fail(failTimedOut)
		}
		return x.fail(failConnect)
	case errors.Is(err, errRefusedAgain):
		return x.fail(failRefused)
	case errors.As(err, &stream):
		x.code = stream.Code
		switch {
		case stream.Code == http2.ErrCodeRefusedStream:
			return x.fail(failRefused)
		case stream.Code == http2.ErrCodeCancel && x.overdue():
			return x.fail(failDeadline)
		}
		return x.fail(failRemoteReset)
	}
	x.rec.FailureReason = err.Error()
	if _, ok := errors.AsType[http2.ConnectionError](err); ok {
		return x.fail(failUpstream)
	}
	return x.fail(failReset)
}

// expired reports whether ctx has ended, or its deadline has passed: what obeys
// the deadline may return a moment before ctx itself ends.
func expired(ctx context.Context) bool {
	at, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(at)
}

// overdue reports whether the deadline that the client of a gRPC call gave it has
// passed. Servers keep it too, and cancel the stream, which may be known here before
// the client looks at its own clock. Without a proxy the client takes that for what
// it is (as grpc-go does); an answer that says the server is not available it could
// not.
func (x *h2stream) overdue() bool {
	timeout, ok := parseGRPCTimeout(x.r.Header.Get("Grpc-Timeout"))
	return ok && x.head.GRPC && time.Duration(telemetry.Now()-x.opened) >= timeout
}

// fail answers with a failure of the proxy's own, or resets a response that has
// begun.
func (x *h2stream) fail(f *failure) (reset bool) {
	x.rec.Flags |= f.flags
	x.rec.Detail = f.detail
	if x.sent {
		return true
	}
	h := x.w.Header()
	h["Date"], h["Content-Length"] = nil, nil
	if x.head.GRPC {
		// Trailers-only: the status is in the one and only head.
		status := telemetry.InferGRPC(f.code)
		if f == failDeadline {
			status = grpcDeadlineExceeded
		}
		x.rec.GRPCStatus = status
		h.Set("Content-Type", "application/grpc")
		h.Set("Grpc-Status", strconv.Itoa(status))
		if f.body != "" {
			h.Set("Grpc-Message", f.body)
		}
		x.sendHead(http.StatusOK, h)
		return false
	}
	h["Content-Type"] = nil
	if f.body != "" {
		h.Set("Content-Type", "text/plain")
		h.Set("Content-Length", strconv.Itoa(len(f.body)))
	}
	x.sendHead(f.code, h)
	if x.r.Method != http.MethodHead && f.body != "" {
		if _, err := io.WriteString(x.w, f.body); err != nil {
			return x.gone()
		}
		x.rec.BytesSent += dataBytes(len(f.body))
	}
	return false
}

// dataBytes is n bytes of a body with the frames around them.
func dataBytes(n int) uint64 {
	return uint64(n) + uint64((n+h2MaxFrame-1)/h2MaxFrame*h2FrameLen)
}

func fieldBytes(h http.Header) uint64 {
	n := 0
	for k, vv := range h {
		for _, v := range vv {
			n += len(k) + len(v) + h2FieldLen
		}
	}
	return uint64(n)
}
