package http1

import (
	"bytes"
	"strconv"
)

// Response is a parsed response head, in the same way as Request.
type Response struct {
	Code    int
	Reason  []byte
	Minor   uint8
	Framing Framing
	Length  uint64 // of the body when Framing is Length; of the Content-Length field when there is no body
	// KeepAlive reports whether the server leaves the connection open.
	KeepAlive bool
	Upgrade   []byte // of a 101 or 426
	// GRPCStatus is the grpc-status field, -1 without one.
	GRPCStatus int

	hasLength bool
	fields    fields
}

// Interim reports whether a further head follows: 1xx except 101.
func (r *Response) Interim() bool { return r.Code < 200 && r.Code != 101 }

// Parse reads a complete head, which answers a request of the given method.
// Errors are of type RejectError.
func (r *Response) Parse(head []byte, isHead, isConnect bool) error {
	r.Upgrade, r.GRPCStatus = nil, -1
	end := bytes.IndexByte(head, '\n')
	if end < 1 || head[end-1] != '\r' {
		return ErrBareLF
	}
	if err := r.statusLine(head[:end-1]); err != nil {
		return err
	}
	if err := r.fields.parse(head, end+1); err != nil {
		return err
	}
	f := &r.fields
	for i := range f.n {
		e := &f.list[i]
		switch e.known {
		case nameConnection:
			e.drop = true
			if err := f.connectionOptions(f.valueOf(i)); err != nil {
				return err
			}
		case nameKeepAlive, nameProxyConnection, namePeerMetadata, nameTE:
			e.drop = true
		case nameUpgrade:
			e.drop = true
			r.Upgrade = f.valueOf(i)
		case nameGRPCStatus:
			if n, ok := parseLength(f.valueOf(i)); ok && n < 1000 {
				r.GRPCStatus = int(n)
			}
		default:
		}
	}
	framing, n, given, err := f.framingOf(r.Minor)
	if err != nil {
		return err
	}
	r.Framing, r.Length, r.hasLength = framing, n, framing == Length
	r.KeepAlive = !f.close && (r.Minor == 1 || f.keepAlive)
	switch {
	case r.Code < 200 || r.Code == 204 || isConnect && r.Code < 300:
		// RFC 9112, 6.3: no body, and no field that frames one.
		r.Framing, r.hasLength = NoBody, false
	case isHead || r.Code == 304:
		r.Framing = NoBody
	case !given:
		r.Framing, r.KeepAlive = UntilClose, false
	}
	return nil
}

func (r *Response) statusLine(line []byte) error {
	switch {
	case len(line) < 12 || len(line) > 12 && line[12] != ' ':
		return ErrStatusLine
	case string(line[:9]) == "HTTP/1.1 ":
		r.Minor = 1
	case string(line[:9]) == "HTTP/1.0 ":
		r.Minor = 0
	default:
		return ErrStatusLine
	}
	code, ok := parseLength(line[9:12])
	if !ok || code < 100 {
		return ErrStatusLine
	}
	r.Code, r.Reason = int(code), nil
	if len(line) > 13 {
		r.Reason = line[13:]
		if !text(r.Reason) {
			return ErrStatusLine
		}
	}
	return nil
}

// AppendHead writes the head as HTTP/1.1 up to, but without, the empty line.
// framing is how the body will be written: what Parse found, or another one for
// a client that cannot take that.
func (r *Response) AppendHead(dst []byte, framing Framing) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendUint(dst, uint64(r.Code), 10)
	dst = append(dst, ' ')
	dst = append(dst, r.Reason...)
	dst = append(dst, "\r\n"...)
	dst = r.fields.appendFields(dst)
	if r.Framing == NoBody {
		if r.hasLength {
			return appendFraming(dst, Length, r.Length)
		}
		return dst
	}
	return appendFraming(dst, framing, r.Length)
}
