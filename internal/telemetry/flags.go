package telemetry

import "strings"

// Flags is the set of reasons why a response or connection was not ordinary,
// in Envoy's vocabulary (envoy/stream_info/stream_info.h, CoreResponseFlag).
// The order of the bits is Envoy's order of printing.
type Flags uint64

// The flags of Envoy, named by their short form.
const (
	FlagLH    Flags = 1 << iota // local service failed its health check
	FlagUH                      // no healthy upstream
	FlagUT                      // upstream request timeout
	FlagLR                      // reset by this proxy
	FlagUR                      // reset by the upstream
	FlagUF                      // connection to the upstream failed
	FlagUC                      // upstream ended the connection early
	FlagUO                      // upstream overflow: circuit breaker
	FlagNR                      // no route
	FlagDI                      // delayed by fault injection
	FlagFI                      // aborted by fault injection
	FlagRL                      // rate limited
	FlagUAEX                    // denied by external authorization
	FlagRLSE                    // error of the rate limit service
	FlagDC                      // client ended the connection early
	FlagURX                     // retry or connect attempts used up
	FlagSI                      // stream idle timeout
	FlagIH                      // invalid x-envoy-* request headers
	FlagDPE                     // client violated the protocol
	FlagUMSDR                   // maximum stream duration reached
	FlagRFCF                    // response from a cache
	FlagNFCF                    // filter configuration missing
	FlagDT                      // connection or request exceeded its maximum duration
	FlagUPE                     // upstream violated the protocol
	FlagNC                      // route names a cluster that does not exist
	FlagOM                      // terminated by overload protection
	FlagDF                      // name resolution failed
	FlagDO                      // dropped because of overload
	FlagDR                      // reset by the client
	FlagUDO                     // all traffic is dropped on purpose
	flagEnd
)

const flagNames = "LH UH UT LR UR UF UC UO NR DI FI RL UAEX RLSE DC URX SI IH DPE UMSDR RFCF NFCF DT UPE NC OM DF DO DR UDO"

// String lists the short names in Envoy's order, joined by commas; "-" if no
// flag is set. Bits beyond the known flags are ignored.
func (f Flags) String() string {
	var b strings.Builder
	names := flagNames
	for bit := FlagLH; bit < flagEnd; bit <<= 1 {
		name, rest, _ := strings.Cut(names, " ")
		names = rest
		if f&bit == 0 {
			continue
		}
		if f&(flagEnd-1) == bit {
			return name
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(name)
	}
	if b.Len() == 0 {
		return "-"
	}
	return b.String()
}
