package http1

// RejectError says why a message is refused. It is an error without memory of its
// own; the zero value is not an error.
type RejectError uint8

// The reasons. Their names are label values of vitrine_http1_rejects_total.
const (
	_ RejectError = iota
	ErrBareLF
	ErrBareCR
	ErrControl
	ErrRequestLine
	ErrMethod
	ErrVersion
	ErrTarget
	ErrFragment
	ErrEscape
	ErrFolding
	ErrFieldName
	ErrFieldLine
	ErrSpaceBeforeColon
	ErrNoHost
	ErrTwoHosts
	ErrHost
	ErrHostMismatch
	ErrLength
	ErrTwoLengths
	ErrLengthAndCoding
	ErrCoding
	ErrTwoCodings
	ErrCodingIn10
	ErrExpectation
	ErrConnection
	ErrHeadTooLarge
	ErrTooManyFields
	ErrChunkSize
	ErrChunkExtension
	ErrChunkEnd
	ErrTrailer
	ErrStatusLine
	ErrTruncated
	errEnd
)

// Error is the reason in snake_case.
func (r RejectError) Error() string {
	if r == 0 || r >= errEnd {
		return "unknown"
	}
	return rejectNames[r]
}

// Status is the code that a client is answered with.
func (r RejectError) Status() int {
	switch r {
	case ErrHeadTooLarge, ErrTooManyFields:
		return 431
	case ErrCoding:
		return 501
	case ErrVersion:
		return 505
	case ErrExpectation:
		return 417
	default:
		return 400
	}
}

//nolint:gochecknoglobals // immutable table
var rejectNames = [errEnd]string{
	ErrBareLF:           "bare_lf",
	ErrBareCR:           "bare_cr",
	ErrControl:          "control_character",
	ErrRequestLine:      "request_line",
	ErrMethod:           "method",
	ErrVersion:          "version",
	ErrTarget:           "target",
	ErrFragment:         "fragment_in_target",
	ErrEscape:           "percent_encoding",
	ErrFolding:          "line_folding",
	ErrFieldName:        "field_name",
	ErrFieldLine:        "field_line",
	ErrSpaceBeforeColon: "space_before_colon",
	ErrNoHost:           "no_host",
	ErrTwoHosts:         "two_hosts",
	ErrHost:             "host",
	ErrHostMismatch:     "host_mismatch",
	ErrLength:           "content_length",
	ErrTwoLengths:       "two_content_lengths",
	ErrLengthAndCoding:  "content_length_and_transfer_encoding",
	ErrCoding:           "transfer_encoding",
	ErrTwoCodings:       "two_transfer_encodings",
	ErrCodingIn10:       "transfer_encoding_in_http10",
	ErrExpectation:      "expectation",
	ErrConnection:       "connection_nominates",
	ErrHeadTooLarge:     "head_too_large",
	ErrTooManyFields:    "too_many_fields",
	ErrChunkSize:        "chunk_size",
	ErrChunkExtension:   "chunk_extension",
	ErrChunkEnd:         "chunk_end",
	ErrTrailer:          "trailer",
	ErrStatusLine:       "status_line",
	ErrTruncated:        "truncated",
}
