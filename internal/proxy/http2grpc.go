package proxy

import (
	"math"
	"strconv"
	"time"
)

// grpcScanner counts the messages of one direction of a gRPC stream, wherever
// DATA frames cut them: each is 1 byte of flags, 4 of length, and the message
// (gRPC over HTTP/2, "Length-Prefixed-Message"). A message counts from its first
// byte on, as in Envoy's grpc_stats.
type grpcScanner struct {
	have   int    // bytes of the header so far
	length uint32 // of the message, while its header is incomplete
	left   uint32 // bytes of the message to come
}

// scan returns how many messages begin in p.
func (g *grpcScanner) scan(p []byte) (messages uint64) {
	for len(p) > 0 {
		if g.left > 0 {
			n := min(g.left, uint32(min(len(p), 1<<30)))
			g.left -= n
			p = p[n:]
			continue
		}
		if g.have == 0 {
			messages++
			g.length = 0
		} else {
			g.length = g.length<<8 | uint32(p[0])
		}
		p = p[1:]
		if g.have++; g.have == 5 {
			g.have, g.left = 0, g.length
		}
	}
	return messages
}

// parseGRPCStatus reads a grpc-status value; -1 if it is none.
func parseGRPCStatus(s string) int {
	if len(s) == 0 || len(s) > 4 {
		return -1
	}
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// grpcDeadlineExceeded is the status of a call whose deadline has passed.
const grpcDeadlineExceeded = 4

// parseGRPCTimeout reads a grpc-timeout value (gRPC over HTTP/2, "Timeout"): at most
// eight digits and a unit. What is longer than a Duration can be is the longest.
func parseGRPCTimeout(s string) (timeout time.Duration, ok bool) {
	const digits = 8
	if len(s) < 2 || len(s) > digits+1 || s[0] < '0' || s[0] > '9' {
		return 0, false
	}
	last := len(s) - 1
	n, err := strconv.ParseUint(s[:last], 10, 32)
	if err != nil {
		return 0, false
	}
	unit, ok := map[byte]time.Duration{
		'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
	}[s[last]]
	if !ok {
		return 0, false
	}
	if time.Duration(n) > math.MaxInt64/unit {
		return math.MaxInt64, true
	}
	return time.Duration(n) * unit, true
}
