package http1

import "bytes"

// name is a field name that means something to a proxy.
type name uint8

const (
	nameOther name = iota
	nameConnection
	nameContentLength
	nameContentType
	nameExpect
	nameForwardedClientCert
	nameForwardedFor
	nameForwardedProto
	nameGRPCStatus
	nameHTTP2Settings
	nameHost
	nameKeepAlive
	namePeerMetadata
	nameProxyConnection
	nameRequestID
	nameTE
	nameTrailer
	nameTransferEncoding
	nameUpgrade
	nameUserAgent
)

func known(b []byte) name {
	switch len(b) {
	case 2:
		return oneOf(b, "te", nameTE)
	case 4:
		return oneOf(b, "host", nameHost)
	case 6:
		return oneOf(b, "expect", nameExpect)
	case 7:
		if n := oneOf(b, "upgrade", nameUpgrade); n != nameOther {
			return n
		}
		return oneOf(b, "trailer", nameTrailer)
	case 10:
		switch b[0] | 0x20 {
		case 'c':
			return oneOf(b, "connection", nameConnection)
		case 'k':
			return oneOf(b, "keep-alive", nameKeepAlive)
		case 'u':
			return oneOf(b, "user-agent", nameUserAgent)
		}
	case 11:
		return oneOf(b, "grpc-status", nameGRPCStatus)
	case 12:
		if b[0]|0x20 == 'c' {
			return oneOf(b, "content-type", nameContentType)
		}
		return oneOf(b, "x-request-id", nameRequestID)
	case 14:
		if b[0]|0x20 == 'h' {
			return oneOf(b, "http2-settings", nameHTTP2Settings)
		}
		return oneOf(b, "content-length", nameContentLength)
	case 15:
		return oneOf(b, "x-forwarded-for", nameForwardedFor)
	case 16:
		return oneOf(b, "proxy-connection", nameProxyConnection)
	case 17:
		if b[0]|0x20 == 'x' {
			return oneOf(b, "x-forwarded-proto", nameForwardedProto)
		}
		return oneOf(b, "transfer-encoding", nameTransferEncoding)
	case 21:
		return oneOf(b, "x-envoy-peer-metadata", namePeerMetadata)
	case 23:
		return oneOf(b, "x-forwarded-client-cert", nameForwardedClientCert)
	case 24:
		return oneOf(b, "x-envoy-peer-metadata-id", namePeerMetadata)
	}
	return nameOther
}

func oneOf(b []byte, s string, n name) name {
	if is(b, s) {
		return n
	}
	return nameOther
}

// field is one field line as offsets into the head, which is shorter than 64 KiB.
type field struct {
	name, nameEnd, value, valueEnd uint16
	known                          name
	drop                           bool // hop-by-hop, or written anew
}

// fields is the field section of a head. The zero value is empty.
type fields struct {
	head []byte
	n    int
	list [MaxFields]field
	// connection options that are given by Connection fields
	close, keepAlive, upgrade bool
}

// parse reads all field lines of head from pos to the empty line, which
// HeadScanner has found.
func (f *fields) parse(head []byte, pos int) error {
	f.head, f.n = head, 0
	f.close, f.keepAlive, f.upgrade = false, false, false
	for {
		line := head[pos:]
		end := bytes.IndexByte(line, '\n')
		if end < 1 || line[end-1] != '\r' {
			return ErrBareLF
		}
		line = line[:end-1]
		if len(line) == 0 {
			return nil
		}
		if f.n == MaxFields {
			return ErrTooManyFields
		}
		colon := 0
		for colon < len(line) && isToken[line[colon]] {
			colon++
		}
		if err := checkName(line, colon); err != nil {
			return err
		}
		from, to := colon+1, len(line)
		for from < to && (line[from] == ' ' || line[from] == '\t') {
			from++
		}
		for to > from && (line[to-1] == ' ' || line[to-1] == '\t') {
			to--
		}
		if !text(line[from:to]) {
			if bytes.IndexByte(line[from:to], '\r') >= 0 {
				return ErrBareCR
			}
			return ErrControl
		}
		f.list[f.n] = field{
			name: uint16(pos), nameEnd: uint16(pos + colon), value: uint16(pos + from), valueEnd: uint16(pos + to),
			known: known(line[:colon]),
		}
		f.n++
		pos += end + 1
	}
}

// checkName looks at the byte that ended the name of a field line.
func checkName(line []byte, at int) error {
	if at > 0 && at < len(line) && line[at] == ':' {
		return nil
	}
	if at == 0 && (line[0] == ' ' || line[0] == '\t') {
		return ErrFolding
	}
	if at == len(line) || at == 0 && line[0] == ':' {
		return ErrFieldLine
	}
	switch line[at] {
	case ' ', '\t':
		return ErrSpaceBeforeColon
	case '\r':
		return ErrBareCR
	}
	return ErrFieldName
}

func (f *fields) nameOf(i int) []byte  { return f.head[f.list[i].name:f.list[i].nameEnd] }
func (f *fields) valueOf(i int) []byte { return f.head[f.list[i].value:f.list[i].valueEnd] }

// connectionOptions applies one Connection field: its options are remembered,
// and the fields that it names are not forwarded. Naming a field that frames or
// routes the message is refused: stripping it would change the message.
func (f *fields) connectionOptions(list []byte) error {
	for len(list) > 0 {
		var item []byte
		item, list = nextItem(list)
		switch {
		case len(item) == 0:
		case is(item, "close"):
			f.close = true
		case is(item, "keep-alive"):
			f.keepAlive = true
		case is(item, "upgrade"):
			f.upgrade = true
		case !token(item):
			return ErrConnection
		default:
			if err := f.dropNamed(item); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *fields) dropNamed(item []byte) error {
	switch known(item) {
	case nameHost, nameContentLength, nameTransferEncoding, nameContentType, nameExpect, nameTrailer:
		return ErrConnection
	case nameTE, nameRequestID, nameForwardedProto: // the first by a rule of its own; the others are ours to keep
		return nil
	default:
	}
	for i := range f.n {
		if equalFold(f.nameOf(i), item) {
			f.list[i].drop = true
		}
	}
	return nil
}

// appendFields writes every field that is forwarded.
func (f *fields) appendFields(dst []byte) []byte {
	for i := range f.n {
		e := &f.list[i]
		if e.drop {
			continue
		}
		dst = append(dst, f.head[e.name:e.nameEnd]...)
		dst = append(dst, ": "...)
		dst = append(dst, f.head[e.value:e.valueEnd]...)
		dst = append(dst, "\r\n"...)
	}
	return dst
}
