package proxy

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func TestTCPEchoIsCountedWhileItLives(t *testing.T) {
	r := newRig(t, mesh.ProtocolTCP, origin(t, echo))
	c := r.dial(t)
	mustWrite(t, c, "hello")
	if got := mustRead(t, c, 5); got != "hello" {
		t.Fatalf("echo %q", got)
	}
	labels := []string{"reporter=source", "destination_service_name=web", "request_protocol=tcp", "response_flags=-"}
	c.CloseWrite()
	mustEOF(t, c)
	c.Close()
	r.wantSeries(t, "1", "istio_tcp_connections_closed_total", labels...)
	r.wantSeries(t, "1", "istio_tcp_connections_opened_total", labels...)
	r.wantSeries(t, "5", "istio_tcp_sent_bytes_total", labels...)
	r.wantSeries(t, "5", "istio_tcp_received_bytes_total", labels...)
}

// The client ends its side first and still gets the whole answer.
func TestTCPHalfCloseByClient(t *testing.T) {
	at := origin(t, func(c *net.TCPConn) {
		all, _ := io.ReadAll(c)
		fmt.Fprintf(c, "%d bytes", len(all))
	})
	r := newRig(t, mesh.ProtocolTCP, at)
	c := r.dial(t)
	mustWrite(t, c, strings.Repeat("x", 100_000))
	c.CloseWrite()
	if got := mustRead(t, c, 12); got != "100000 bytes" {
		t.Errorf("answer %q", got)
	}
	mustEOF(t, c)
	r.wantSeries(t, "100000", "istio_tcp_received_bytes_total")
	r.wantSeries(t, "12", "istio_tcp_sent_bytes_total")
}

// The server ends its side first and still reads what the client sends later.
func TestTCPHalfCloseByServer(t *testing.T) {
	got := make(chan string, 1)
	at := origin(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "bye")
		c.CloseWrite()
		all, _ := io.ReadAll(c)
		got <- string(all)
	})
	r := newRig(t, mesh.ProtocolTCP, at)
	c := r.dial(t)
	if s := mustRead(t, c, 3); s != "bye" {
		t.Fatalf("greeting %q", s)
	}
	mustEOF(t, c)
	mustWrite(t, c, "last words")
	c.CloseWrite()
	if s := <-got; s != "last words" {
		t.Errorf("server read %q", s)
	}
}

// A server that takes the end of the client's bytes and then neither answers
// nor ends is given up.
func TestTCPHalfClosedTimeout(t *testing.T) {
	at := origin(t, func(c *net.TCPConn) {
		_, _ = io.Copy(io.Discard, c)
		<-t.Context().Done()
	})
	r := newRigWith(t, Options{HalfCloseTimeout: 30 * time.Millisecond}, mesh.ProtocolTCP, at)
	c := r.dial(t)
	mustWrite(t, c, "x")
	c.CloseWrite()
	mustReset(t, c)
	r.wantSeries(t, "1", "istio_tcp_connections_closed_total")
}

// 64 MiB each way at once: long enough for splicing, and not a byte differs.
func TestTCPBulkIsByteExact(t *testing.T) {
	const size = 64 << 20
	up, down := make(chan [32]byte, 1), bulk(1, size)
	at := origin(t, func(c *net.TCPConn) {
		written := make(chan struct{})
		go func() {
			defer close(written)
			_, _ = io.Copy(c, bytes.NewReader(down))
			c.CloseWrite()
		}()
		h := sha256.New()
		_, _ = io.Copy(h, c)
		up <- [32]byte(h.Sum(nil))
		<-written
	})
	r := newRig(t, mesh.ProtocolTCP, at)
	c := r.dial(t)
	sent := bulk(2, size)
	go func() {
		_, _ = io.Copy(c, bytes.NewReader(sent))
		c.CloseWrite()
	}()
	h := sha256.New()
	if n, err := io.Copy(h, c); err != nil || n != size {
		t.Fatalf("read %d bytes, %v", n, err)
	}
	if [32]byte(h.Sum(nil)) != sha256.Sum256(down) {
		t.Error("bytes from the server differ")
	}
	if <-up != sha256.Sum256(sent) {
		t.Error("bytes from the client differ")
	}
	c.Close()
	r.wantSeries(t, strconv.Itoa(size), "istio_tcp_sent_bytes_total")
	r.wantSeries(t, strconv.Itoa(size), "istio_tcp_received_bytes_total")
}

func bulk(seed byte, n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{seed})
	_, _ = src.Read(b)
	return b
}

func TestTCPRefusedUpstreamResetsClient(t *testing.T) {
	r := newRig(t, mesh.ProtocolTCP, closedPort(t))
	r.dialReset(t)
	r.wantSeries(t, "1", "istio_tcp_connections_closed_total", "response_flags=UF", "destination_service_name=web")
}

func TestTCPWithoutEndpointsResetsClient(t *testing.T) {
	r := newRig(t, mesh.ProtocolTCP)
	r.dialReset(t)
	r.wantSeries(t, "1", "istio_tcp_connections_closed_total", "response_flags=UH", "destination_service_name=web")
}

func TestTCPResetIsPassedOn(t *testing.T) {
	t.Run("by the server", func(t *testing.T) {
		at := origin(t, func(c *net.TCPConn) {
			_, _ = io.ReadFull(c, make([]byte, 1))
			_ = c.SetLinger(0)
		})
		c := newRig(t, mesh.ProtocolTCP, at).dial(t)
		mustWrite(t, c, "x")
		mustReset(t, c)
	})
	t.Run("by the client", func(t *testing.T) {
		got := make(chan error, 1)
		at := origin(t, func(c *net.TCPConn) {
			_, err := io.Copy(c, c)
			got <- err
		})
		c := newRig(t, mesh.ProtocolTCP, at).dial(t)
		mustWrite(t, c, "x")
		mustRead(t, c, 1)
		_ = c.SetLinger(0)
		c.Close()
		if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("server read: %v, want a reset", err)
		}
	})
}

// A server that answers, stops reading and goes: the answer arrives although
// the client is still sending.
func TestTCPAnswerBeforeResetArrives(t *testing.T) {
	answer := strings.Repeat("a", 1000)
	at := origin(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 10))
		_, _ = io.WriteString(c, answer)
		c.CloseWrite()
		_, _ = io.ReadFull(c, make([]byte, 10))
	})
	r := newRig(t, mesh.ProtocolTCP, at)
	c := r.dial(t)
	mustWrite(t, c, strings.Repeat("x", 10))
	if got := mustRead(t, c, len(answer)); got != answer {
		t.Errorf("answer differs: %.20q", got)
	}
}
