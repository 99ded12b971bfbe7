package detect

// MaxPrefix is the longest prefix, in bytes, that a decision may need. Bytes
// behind it are not looked at. It holds the largest TLS ClientHello in use
// (post-quantum key shares make them about 2 KiB) and a request line that is
// longer than any that is served.
const MaxPrefix = 16 << 10

// Kind is what the proxy does with a connection.
type Kind uint8

// The kinds. Unknown is the zero value and means that more bytes are needed.
const (
	Unknown Kind = iota
	HTTP1
	HTTP2 // prior knowledge, that is with the connection preface of RFC 9113 section 3.4
	TLS   // a ClientHello
	Opaque
)

// String is the value of the result label of vitrine_protocol_detection_total.
func (k Kind) String() string {
	switch k {
	case HTTP1:
		return "http1"
	case HTTP2:
		return "http2"
	case TLS:
		return "tls"
	case Opaque:
		return "opaque"
	case Unknown:
	}
	return "unknown"
}

// Result says what a connection speaks.
type Result struct {
	// Kind is set as soon as it is certain: TLS before its server name is there,
	// and the result decided.
	Kind Kind
	// SNI is the server name of a ClientHello: lower case, without a final dot,
	// only letters, digits, '-', '_' and '.'. "" when absent or malformed.
	SNI string
}

// verdict is the opinion of one protocol's signature on a prefix. no and yes are
// final: they hold for every longer prefix too. That makes Client monotone.
type verdict uint8

const (
	no verdict = iota
	maybe
	yes
)

// Client decides by the first bytes that a client sent. While decided is false,
// more bytes are needed to fill in the result; with MaxPrefix bytes it is always
// decided.
func Client(prefix []byte) (r Result, decided bool) {
	full := len(prefix) >= MaxPrefix
	prefix = prefix[:min(len(prefix), MaxPrefix)]
	switch http2Preface(prefix) {
	case yes:
		return Result{Kind: HTTP2}, true
	case maybe:
		return Result{}, false
	case no:
	}
	switch v, certain := http1Line(prefix); {
	case v == yes, v == maybe && full && certain:
		return Result{Kind: HTTP1}, true
	case v == maybe && !full:
		return Result{}, false
	}
	switch clientHello(prefix) {
	case yes:
		return parseTLS(prefix)
	case maybe:
		return Result{}, false
	case no:
	}
	return Result{Kind: Opaque}, true
}

// literal reports whether prefix starts with want, or still may.
func literal(prefix []byte, want string) verdict {
	n := min(len(prefix), len(want))
	if string(prefix[:n]) != want[:n] {
		return no
	}
	if n < len(want) {
		return maybe
	}
	return yes
}
