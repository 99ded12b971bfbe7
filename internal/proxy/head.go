package proxy

import "bytes"

// Head is the head of a request as routing, policy and recording see it,
// whatever protocol carried it. All slices point into memory of the codec and
// are good until the request ends; whoever keeps them copies.
type Head struct {
	Method    []byte
	Authority []byte // Host or :authority, as sent
	Path      []byte // normalised path and query; the authority for CONNECT
	UserAgent []byte
	RequestID []byte // x-request-id, as forwarded
	GRPC      bool   // content-type is application/grpc or a variant
}

// isGRPC applies Istio's rule for request_protocol to a content-type.
func isGRPC(contentType []byte) bool {
	const grpc = "application/grpc"
	return len(contentType) >= len(grpc) && bytes.EqualFold(contentType[:len(grpc)], []byte(grpc)) &&
		(len(contentType) == len(grpc) || contentType[len(grpc)] == '+' || contentType[len(grpc)] == ';' || contentType[len(grpc)] == '-')
}

// idempotent reports whether a request may be sent twice (RFC 9110, 9.2.2).
func idempotent(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}
