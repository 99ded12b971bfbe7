package http1

// Framing is how the end of a message body is known.
type Framing uint8

// The framings of RFC 9112, 6.3.
const (
	NoBody     Framing = iota
	Length             // Content-Length
	Chunked            // Transfer-Encoding: chunked
	UntilClose         // responses only: the body ends with the connection
)

// framingOf applies the rules that requests and responses share. given is
// false when neither Content-Length nor Transfer-Encoding is present. The
// fields are marked as not forwarded: the writer frames anew.
func (f *fields) framingOf(minor uint8) (fr Framing, n uint64, given bool, err error) {
	lengths, codings := 0, 0
	for i := range f.n {
		switch f.list[i].known {
		case nameContentLength:
			lengths++
			f.list[i].drop = true
			var ok bool
			if n, ok = parseLength(f.valueOf(i)); !ok {
				return 0, 0, false, ErrLength
			}
		case nameTransferEncoding:
			codings++
			f.list[i].drop = true
			if !is(f.valueOf(i), "chunked") {
				err = ErrCoding
			}
		default:
		}
	}
	switch {
	case lengths > 1:
		return 0, 0, false, ErrTwoLengths
	case lengths > 0 && codings > 0:
		return 0, 0, false, ErrLengthAndCoding
	case codings > 1:
		return 0, 0, false, ErrTwoCodings
	case codings > 0 && minor == 0:
		return 0, 0, false, ErrCodingIn10
	case err != nil:
		return 0, 0, false, err
	case codings == 1:
		return Chunked, 0, true, nil
	case lengths == 1:
		return Length, n, true, nil
	}
	return NoBody, 0, false, nil
}
