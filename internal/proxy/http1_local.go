package proxy

import (
	"errors"
	"strconv"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/proxy/http1"
	"github.com/vitrine-mesh/vitrine/internal/telemetry"
)

// refuse answers a message that cannot be understood, and counts why.
func (h *http1Conn) refuse(start int64, err error) {
	x := h.x
	f := failure{code: 408, flags: telemetry.FlagDPE, detail: "request_header_timeout"}
	if r, ok := errors.AsType[http1.RejectError](err); ok {
		h.p.o.Recorder.Rejected(r.Error())
		f.code, f.detail = r.Status(), r.Error()
		f.body = f.detail
	}
	x.rec = h.p.o.Recorder.Begin(h.dir, start)
	x.rec.SetRequest(x.req.Method, x.req.Path, x.req.Authority, x.req.UserAgent)
	x.rec.Downstream, x.rec.DownstreamLocal = h.source, h.local
	x.rec.BytesReceived = uint64(h.in.Len())
	if h.dir == mesh.Inbound {
		x.rec.Edge = h.edgeIn
	}
	x.closing = true
	h.answerLocally(&f)
	h.linger()
}

// answerLocally sends a response of the proxy's own and finishes the record.
func (h *http1Conn) answerLocally(f *failure) {
	x := h.x
	// What is left of the request makes the connection unusable.
	if !x.reqBody.Done() && x.req.Framing != http1.NoBody {
		h.swallow()
	}
	if !x.reqBody.Done() && x.req.Framing != http1.NoBody {
		x.closing = true
	}
	res := x.localResponse(f)
	x.out = res
	x.fail(f)
	x.rec.Code = f.code
	n, err := h.down.Write(res)
	x.rec.BytesSent += uint64(n)
	if err != nil {
		x.closing = true
		x.rec.Code, x.rec.Detail = 0, detailClientGone
		x.rec.Flags |= telemetry.FlagDC
	}
	x.unfinished = true
}

// swallow uses up what of the request body has been read already.
func (h *http1Conn) swallow() {
	x := h.x
	for h.in.Len() > 0 && !x.reqBody.Done() {
		_, _, used, err := x.reqBody.Next(h.in.Bytes())
		x.rec.BytesReceived += uint64(used)
		h.in.Skip(used)
		if err != nil || used == 0 {
			return
		}
	}
}

// finishLocal ends an exchange that the proxy answered itself.
func (h *http1Conn) finishLocal() bool {
	if x := h.x; x.closing {
		if x.req.Framing != http1.NoBody && !x.reqBody.Done() || h.in.Len() > 0 {
			h.linger()
		}
		return false
	}
	return true
}

// localResponse writes a complete response to x.out. An HTTP/1.0 client takes the
// connection for one that ends unless it is told otherwise.
func (x *exchange) localResponse(f *failure) []byte {
	dst := x.out[:0]
	dst = append(dst, "HTTP/1.1 "...)
	dst = appendInt(dst, f.code)
	dst = append(dst, ' ')
	dst = append(dst, statusText(f.code)...)
	dst = append(dst, "\r\nContent-Length: "...)
	dst = appendInt(dst, len(f.body))
	if len(f.body) > 0 {
		dst = append(dst, "\r\nContent-Type: text/plain"...)
	}
	switch {
	case x.closing:
		dst = append(dst, "\r\nConnection: close"...)
	case x.http10:
		dst = append(dst, "\r\nConnection: keep-alive"...)
	}
	dst = append(dst, "\r\n\r\n"...)
	if !x.isHead {
		dst = append(dst, f.body...)
	}
	return dst
}

// Bounds of linger.
const (
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// linger ends a connection on which the client may still be sending: it closes
// the sending side and reads on for a while, since closing at once would make
// the kernel reset the connection and the client lose the response. It settles the
// exchange: h.x is nil then, and what it was belongs to somebody else.
func (h *http1Conn) linger() {
	h.settle(h.refused()) // what follows is no longer part of the request
	tcp, ok := h.nc.(interface{ CloseWrite() error })
	if !ok || tcp.CloseWrite() != nil {
		return
	}
	_ = h.nc.SetReadDeadline(time.Now().Add(lingerTime)) // fails only when closed
	h.in.Release()
	var room [512]byte
	for total := 0; total < lingerBytes; {
		n, err := h.nc.Read(room[:])
		if err != nil {
			return
		}
		total += n
	}
}

func appendInt(dst []byte, n int) []byte { return strconv.AppendInt(dst, int64(n), 10) }

// statusText is the reason phrase of the codes that the proxy answers with.
func statusText(code int) string {
	switch code {
	case 400:
		return "Bad Request"
	case 404:
		return "Not Found"
	case 408:
		return "Request Timeout"
	case 417:
		return "Expectation Failed"
	case 431:
		return "Request Header Fields Too Large"
	case 501:
		return "Not Implemented"
	case 502:
		return "Bad Gateway"
	case 503:
		return "Service Unavailable"
	case 504:
		return "Gateway Timeout"
	case 505:
		return "HTTP Version Not Supported"
	}
	return ""
}
