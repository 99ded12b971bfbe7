package http1

import (
	"bytes"
	"strconv"
)

// Request is a parsed request head. Its slices point into the head given to
// Parse, which the caller leaves alone until the request is written. The
// memory is reused by the next Parse.
type Request struct {
	Method    []byte
	Authority []byte // the Host field; of the target for CONNECT; empty for HTTP/1.0 without Host
	Path      []byte // normalised path and query, "*" for OPTIONS; the authority for CONNECT
	Minor     uint8  // of the version 1.Minor
	Framing   Framing
	Length    uint64 // of the body when Framing is Length

	// KeepAlive reports whether the connection may serve another request after
	// this one, as far as the client says.
	KeepAlive bool
	// Upgrade is the Upgrade field when it is to be forwarded: never for h2c.
	Upgrade  []byte
	Expect   bool // Expect: 100-continue
	Trailers bool // TE: trailers

	UserAgent, RequestID, ContentType []byte
	ForwardedFor                      []byte // the first X-Forwarded-For field
	hasProto                          bool

	fields fields
}

// IsConnect reports whether the method is CONNECT.
func (r *Request) IsConnect() bool { return string(r.Method) == "CONNECT" }

// IsHead reports whether the method is HEAD.
func (r *Request) IsHead() bool { return string(r.Method) == "HEAD" }

// Clear forgets the last request, whose memory may serve others by now.
func (r *Request) Clear() {
	r.Method, r.Authority, r.Path, r.Upgrade = nil, nil, nil, nil
	r.UserAgent, r.RequestID, r.ContentType, r.ForwardedFor = nil, nil, nil, nil
	r.Framing, r.Length = NoBody, 0
	r.KeepAlive, r.Expect, r.Trailers, r.hasProto = false, false, false, false
	r.fields.head, r.fields.n = nil, 0
}

// Parse reads a complete head, the empty line included, as HeadScanner
// delimits it. It changes the bytes of the target when it normalises the path.
// Errors are of type RejectError; what was understood of the request line before the
// error is set, for the log.
func (r *Request) Parse(head []byte) error {
	r.Clear()
	if len(head) > MaxHeadBytes {
		return ErrHeadTooLarge
	}
	end := bytes.IndexByte(head, '\n')
	if end < 1 || head[end-1] != '\r' {
		return ErrBareLF
	}
	target, err := r.requestLine(head[:end-1])
	if err != nil {
		return err
	}
	if err := r.fields.parse(head, end+1); err != nil {
		return err
	}
	if err := r.interpret(); err != nil {
		return err
	}
	return r.setTarget(target)
}

func (r *Request) requestLine(line []byte) (target []byte, err error) {
	sp := bytes.IndexByte(line, ' ')
	if sp < 0 {
		return nil, ErrRequestLine
	}
	if !token(line[:sp]) {
		return nil, ErrMethod
	}
	r.Method = line[:sp]
	rest := line[sp+1:]
	if sp = bytes.IndexByte(rest, ' '); sp < 1 {
		return nil, ErrRequestLine
	}
	target = rest[:sp]
	switch version := string(rest[sp+1:]); version {
	case "HTTP/1.1":
		r.Minor = 1
	case "HTTP/1.0":
		r.Minor = 0
	default:
		if len(version) > 5 && version[:5] == "HTTP/" && !bytes.ContainsAny(rest[sp+1:], " \t\r") {
			return nil, ErrVersion
		}
		return nil, ErrRequestLine
	}
	return target, nil
}

// interpret applies the fields that concern the connection and the framing.
func (r *Request) interpret() error {
	f := &r.fields
	hosts, upgrade := 0, -1
	for i := range f.n {
		e := &f.list[i]
		switch e.known {
		case nameHost:
			hosts++
			r.Authority = f.valueOf(i)
			e.drop = true
		case nameConnection:
			e.drop = true
			if err := f.connectionOptions(f.valueOf(i)); err != nil {
				return err
			}
		case nameKeepAlive, nameProxyConnection, nameHTTP2Settings, namePeerMetadata, nameForwardedClientCert:
			e.drop = true
		case nameUpgrade:
			e.drop = true
			if upgrade >= 0 { // two fields: none of them is honoured
				upgrade = len(f.list)
			} else {
				upgrade = i
			}
		case nameTE:
			e.drop = true
			r.Trailers = r.Trailers || hasItem(f.valueOf(i), "trailers")
		case nameExpect:
			e.drop = true
			if !is(f.valueOf(i), "100-continue") {
				return ErrExpectation
			}
			r.Expect = r.Minor == 1
		case nameUserAgent:
			r.UserAgent = f.valueOf(i)
		case nameRequestID:
			r.RequestID = f.valueOf(i)
		case nameContentType:
			r.ContentType = f.valueOf(i)
		case nameForwardedFor:
			if r.ForwardedFor == nil {
				r.ForwardedFor = f.valueOf(i)
			}
		case nameForwardedProto:
			r.hasProto = true
		default:
		}
	}
	var err error
	if r.Framing, r.Length, _, err = f.framingOf(r.Minor); err != nil {
		return err
	}
	r.KeepAlive = !f.close && (r.Minor == 1 || f.keepAlive)
	hasBody := r.Framing == Chunked || r.Length > 0
	if upgrade >= 0 && upgrade < len(f.list) && f.upgrade && r.Minor == 1 && !hasBody {
		r.setUpgrade(f.valueOf(upgrade))
	}
	return r.checkHost(hosts)
}

// setUpgrade honours an upgrade unless it leads to HTTP/2: an h2c connection
// through a proxy that does not see it would carry unseen requests.
func (r *Request) setUpgrade(list []byte) {
	for rest := list; len(rest) > 0; {
		var item []byte
		item, rest = nextItem(rest)
		if is(item, "h2c") || is(item, "h2") || len(item) >= 5 && is(item[:5], "http/") {
			return
		}
	}
	r.Upgrade = list
}

func (r *Request) checkHost(hosts int) error {
	switch {
	case hosts > 1:
		return ErrTwoHosts
	case hosts == 0 && r.Minor == 0:
		return nil
	case hosts == 0 || len(r.Authority) == 0:
		return ErrNoHost
	}
	return checkAuthority(r.Authority)
}

// setTarget reads the four forms of RFC 9112, 3.2.
func (r *Request) setTarget(target []byte) error {
	for _, c := range target {
		if c <= ' ' || c == 0x7f {
			return ErrTarget
		}
	}
	if r.IsConnect() {
		return r.setConnect(target)
	}
	switch {
	case target[0] == '/':
	case len(target) == 1 && target[0] == '*':
		if string(r.Method) != "OPTIONS" {
			return ErrTarget
		}
		r.Path = target
		return nil
	default:
		var err error
		if target, err = r.absolute(target); err != nil {
			return err
		}
	}
	if bytes.IndexByte(target, '#') >= 0 {
		return ErrFragment
	}
	var err error
	r.Path, err = normalizePath(target)
	return err
}

func (r *Request) setConnect(target []byte) error {
	host, ok := tunnelEnd(target)
	if !ok {
		return ErrTarget
	}
	if len(r.Authority) > 0 && !equalFold(r.Authority, target) && !equalFold(r.Authority, target[:host]) {
		return ErrHostMismatch
	}
	if r.Framing != NoBody && (r.Framing == Chunked || r.Length > 0) {
		return ErrLength // a tunnel has no body; what follows is its content
	}
	r.Authority, r.Path = target, target
	return nil
}

// absolute turns an absolute-form target into origin-form, in place. Its
// authority must be the Host field's: RFC 9112 lets it override Host, but not
// every recipient knows that.
func (r *Request) absolute(target []byte) ([]byte, error) {
	var scheme int
	switch {
	case len(target) > 7 && is(target[:7], "http://"):
		scheme = 7
	case len(target) > 8 && is(target[:8], "https://"):
		scheme = 8
	default:
		return nil, ErrTarget
	}
	end := scheme
	for end < len(target) && target[end] != '/' && target[end] != '?' && target[end] != '#' {
		end++
	}
	authority := target[scheme:end]
	if len(authority) == 0 || checkAuthority(authority) != nil {
		return nil, ErrTarget
	}
	switch {
	case len(r.Authority) == 0: // HTTP/1.0 without Host: move it out of the way of the path
		r.Authority = target[scheme-1 : end-1]
		copy(r.Authority, authority)
	case !equalFold(authority, r.Authority):
		return nil, ErrHostMismatch
	}
	if end == len(target) || target[end] == '?' {
		end-- // the authority is known from elsewhere: its last byte becomes the path
		target[end] = '/'
	}
	return target[end:], nil
}

// SetAuthority names the host of an HTTP/1.0 request that names none.
func (r *Request) SetAuthority(a []byte) { r.Authority = a }

// HasForwardedProto reports whether the client sent x-forwarded-proto.
func (r *Request) HasForwardedProto() bool { return r.hasProto }

// AppendHead writes the head as HTTP/1.1 up to, but without, the empty line,
// so that the caller can add fields of its own. Names keep their spelling and
// fields their order; Host comes first and the framing last.
func (r *Request) AppendHead(dst []byte) []byte {
	dst = append(dst, r.Method...)
	dst = append(dst, ' ')
	dst = append(dst, r.Path...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, r.Authority...)
	dst = append(dst, "\r\n"...)
	dst = r.fields.appendFields(dst)
	if r.Expect {
		dst = append(dst, "Expect: 100-continue\r\n"...)
	}
	switch {
	case r.Upgrade != nil:
		dst = append(dst, "Connection: Upgrade\r\nUpgrade: "...)
		dst = append(dst, r.Upgrade...)
		dst = append(dst, "\r\n"...)
	case r.Trailers:
		dst = append(dst, "Connection: TE\r\n"...)
	}
	if r.Trailers {
		dst = append(dst, "TE: trailers\r\n"...)
	}
	return appendFraming(dst, r.Framing, r.Length)
}

func appendFraming(dst []byte, f Framing, n uint64) []byte {
	switch f {
	case Length:
		dst = append(dst, "Content-Length: "...)
		dst = strconv.AppendUint(dst, n, 10)
		dst = append(dst, "\r\n"...)
	case Chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case NoBody, UntilClose:
	}
	return dst
}
