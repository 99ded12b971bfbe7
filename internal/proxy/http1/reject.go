package http1

// Reject says why a message is refused. It is an error without memory of its
// own; the zero value is not an error.
type Reject uint8

// The reasons. Their names are label values of vitrine_http1_rejects_total.
const (
	_ Reject = iota
	RejectBareLF
	RejectBareCR
	RejectControl
	RejectRequestLine
	RejectMethod
	RejectVersion
	RejectTarget
	RejectFragment
	RejectEscape
	RejectFolding
	RejectFieldName
	RejectFieldLine
	RejectSpaceBeforeColon
	RejectNoHost
	RejectTwoHosts
	RejectHost
	RejectHostMismatch
	RejectLength
	RejectTwoLengths
	RejectLengthAndCoding
	RejectCoding
	RejectTwoCodings
	RejectCodingIn10
	RejectExpectation
	RejectConnection
	RejectHeadTooLarge
	RejectTooManyFields
	RejectChunkSize
	RejectChunkExtension
	RejectChunkEnd
	RejectTrailer
	RejectStatusLine
	RejectTruncated
	rejectEnd
)

// Error is the reason in snake_case.
func (r Reject) Error() string {
	if r == 0 || r >= rejectEnd {
		return "unknown"
	}
	return rejectNames[r]
}

// Status is the code that a client is answered with.
func (r Reject) Status() int {
	switch r {
	case RejectHeadTooLarge, RejectTooManyFields:
		return 431
	case RejectCoding:
		return 501
	case RejectVersion:
		return 505
	case RejectExpectation:
		return 417
	}
	return 400
}

//nolint:gochecknoglobals // immutable table
var rejectNames = [rejectEnd]string{
	RejectBareLF:           "bare_lf",
	RejectBareCR:           "bare_cr",
	RejectControl:          "control_character",
	RejectRequestLine:      "request_line",
	RejectMethod:           "method",
	RejectVersion:          "version",
	RejectTarget:           "target",
	RejectFragment:         "fragment_in_target",
	RejectEscape:           "percent_encoding",
	RejectFolding:          "line_folding",
	RejectFieldName:        "field_name",
	RejectFieldLine:        "field_line",
	RejectSpaceBeforeColon: "space_before_colon",
	RejectNoHost:           "no_host",
	RejectTwoHosts:         "two_hosts",
	RejectHost:             "host",
	RejectHostMismatch:     "host_mismatch",
	RejectLength:           "content_length",
	RejectTwoLengths:       "two_content_lengths",
	RejectLengthAndCoding:  "content_length_and_transfer_encoding",
	RejectCoding:           "transfer_encoding",
	RejectTwoCodings:       "two_transfer_encodings",
	RejectCodingIn10:       "transfer_encoding_in_http10",
	RejectExpectation:      "expectation",
	RejectConnection:       "connection_nominates",
	RejectHeadTooLarge:     "head_too_large",
	RejectTooManyFields:    "too_many_fields",
	RejectChunkSize:        "chunk_size",
	RejectChunkExtension:   "chunk_extension",
	RejectChunkEnd:         "chunk_end",
	RejectTrailer:          "trailer",
	RejectStatusLine:       "status_line",
	RejectTruncated:        "truncated",
}
