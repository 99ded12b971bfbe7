package pod

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// askGRPC calls grpc.health.v1.Health/Check over plain HTTP/2, as the kubelet
// does. The call is written out, since linking grpc-go would cost every proxy
// megabytes of memory for this one message.
func askGRPC(ctx context.Context, c Case, p *mesh.GRPCProbe) error {
	t := &http.Transport{
		Protocols: new(http.Protocols),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return c.Dial(ctx, p.Port)
		},
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	defer t.CloseIdleConnections()
	url := "http://" + net.JoinHostPort("localhost", strconv.Itoa(int(p.Port))) + "/grpc.health.v1.Health/Check"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(healthRequest(p.Service)))
	if err != nil {
		return fmt.Errorf("grpc probe: %w", err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	req.Header.Set("User-Agent", userAgent)
	resp, err := t.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("grpc probe of port %d: %w", p.Port, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, probeBodyBytes))
	if err != nil {
		return fmt.Errorf("grpc probe of port %d: %w", p.Port, err)
	}
	status := resp.Trailer.Get("Grpc-Status")
	if status == "" {
		status = resp.Header.Get("Grpc-Status") // an answer without messages has only headers
	}
	switch {
	case status == "":
		return fmt.Errorf("grpc probe of port %d: HTTP status %d without a gRPC status: this is not a gRPC server", p.Port, resp.StatusCode)
	case status == grpcUnimplemented:
		return fmt.Errorf("grpc probe of port %d: the server does not implement grpc.health.v1.Health: add that, or use tcpSocket", p.Port)
	case status == grpcNotFound:
		return fmt.Errorf("grpc probe of port %d: the server does not know the health of service %q", p.Port, p.Service)
	case resp.StatusCode != http.StatusOK || status != "0":
		return fmt.Errorf("grpc probe of port %d: HTTP status %d, gRPC status %q", p.Port, resp.StatusCode, status)
	}
	serving, err := healthResponse(body)
	if err != nil {
		return fmt.Errorf("grpc probe of port %d: %w", p.Port, err)
	}
	if serving != healthServing {
		return fmt.Errorf("grpc probe of port %d: health status %d is not SERVING", p.Port, serving)
	}
	return nil
}

// gRPC's status codes by which a server says what it lacks (grpc, statuscodes.md).
const (
	grpcNotFound      = "5"
	grpcUnimplemented = "12"
)

// healthServing is HealthCheckResponse.ServingStatus SERVING.
const healthServing = 1

// healthRequest is a HealthCheckRequest {string service = 1} in a gRPC frame.
func healthRequest(service string) []byte {
	var msg []byte
	if service != "" {
		msg = append(msg, 1<<3|2) // field 1, length-delimited
		msg = binary.AppendUvarint(msg, uint64(len(service)))
		msg = append(msg, service...)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(msg))), msg...)
}

// healthResponse reads the status of a HealthCheckResponse {ServingStatus status
// = 1} in a gRPC frame. Fields it does not know are an error: the message has
// only this one.
func healthResponse(frame []byte) (status uint64, err error) {
	if len(frame) < 5 || frame[0] != 0 || int(binary.BigEndian.Uint32(frame[1:5])) != len(frame)-5 {
		return 0, errors.New("answer is not one uncompressed gRPC message")
	}
	for msg := frame[5:]; len(msg) > 0; {
		if msg[0] != 1<<3 { // field 1, varint
			return 0, errors.New("answer is not a HealthCheckResponse")
		}
		v, n := binary.Uvarint(msg[1:])
		if n <= 0 {
			return 0, errors.New("answer is cut short")
		}
		status, msg = v, msg[1+n:]
	}
	return status, nil
}
