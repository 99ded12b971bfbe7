package proxy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// origin serves each connection with handle until the test ends.
func origin(t *testing.T, handle func(c *net.TCPConn)) netip.AddrPort {
	t.Helper()
	ln := tcpListen(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.AcceptTCP()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	return addrPort(ln)
}

func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	ln := tcpListen(t)
	a := addrPort(ln)
	ln.Close()
	return a
}

func mustWrite(t *testing.T, c io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatalf("write: %v", err)
	}
}

func mustRead(t *testing.T, c net.Conn, n int) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	got, err := io.ReadFull(c, b)
	if err != nil {
		t.Fatalf("read %d bytes: got %q, %v", n, b[:got], err)
	}
	return string(b)
}

func mustEOF(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Fatalf("read = %d, %v, want the end", n, err)
	}
}

// mustReset wants the connection to be reset, not closed in order.
func mustReset(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read: %v, want a reset", err)
	}
}

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

func TestDetectsServerFirst(t *testing.T) {
	at := origin(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "220 mx ESMTP\r\n")
		line, _ := bufio.NewReader(c).ReadString('\n')
		_, _ = io.WriteString(c, "250 "+line)
	})
	r := newRig(t, mesh.ProtocolAuto, at)
	for round := range 2 {
		c := r.dial(t)
		if got := mustRead(t, c, 14); got != "220 mx ESMTP\r\n" {
			t.Fatalf("greeting %q", got)
		}
		mustWrite(t, c, "HELO me\r\n")
		if got := mustRead(t, c, 13); got != "250 HELO me\r\n" {
			t.Fatalf("answer %q", got)
		}
		mustEOF(t, c)
		c.Close()
		r.wantSeries(t, strconv.Itoa(round+1), "vitrine_protocol_detection_total", "result=server_first")
		r.p.serverFirst.mu.Lock()
		n := len(r.p.serverFirst.known)
		r.p.serverFirst.mu.Unlock()
		if n != 1 {
			t.Errorf("%d server-first destinations remembered, want 1", n)
		}
	}
	r.wantSeries(t, "2", "istio_tcp_connections_closed_total", "destination_service_name=web")

	r.wantSeries(t, "54", "istio_tcp_sent_bytes_total")
}

func TestDetectsOpaqueClients(t *testing.T) {
	for _, tc := range []struct{ name, first string }{
		{"redis", "*1\r\n$4\r\nPING\r\n"},
		{"postgres", "\x00\x00\x00\x08\x04\xd2\x16\x2f"},
		{"a word without an end", "ping"},
		{"an unfinished name", "\x00\x00"},
		{"memcached", "get k\r\n"},
		{"redis inline", "GET key\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, mesh.ProtocolAuto, origin(t, echo))
			c := r.dial(t)
			mustWrite(t, c, tc.first)
			if got := mustRead(t, c, len(tc.first)); got != tc.first {
				t.Errorf("echo %q, want %q", got, tc.first)
			}
			r.wantSeries(t, "1", "vitrine_protocol_detection_total", "result=opaque")
			c.CloseWrite()
			mustEOF(t, c)
			r.wantSeries(t, "1", "istio_tcp_connections_closed_total")
		})
	}
}

// A client that is silent at first, longer than the grace, and then speaks
// neither HTTP nor waits for the server.
func TestDetectsOpaqueClientAfterTheGrace(t *testing.T) {
	accepted := make(chan struct{}, 1)
	at := origin(t, func(c *net.TCPConn) {
		accepted <- struct{}{}
		echo(c)
	})
	r := newRig(t, mesh.ProtocolAuto, at)
	c := r.dial(t)
	<-accepted // the early connection
	mustWrite(t, c, "*1\r\n$4\r\nPING\r\n")
	if got := mustRead(t, c, 14); got != "*1\r\n$4\r\nPING\r\n" {
		t.Errorf("echo %q", got)
	}
	select {
	case <-accepted:
		t.Error("a second connection was opened, though the early one was there")
	default:
	}
	c.CloseWrite()
	mustEOF(t, c)
	r.wantSeries(t, "1", "istio_tcp_connections_closed_total", "response_flags=-")
}

func TestDetectsTLSByName(t *testing.T) {
	cert := selfSigned(t)
	at := origin(t, func(c *net.TCPConn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
		_, _ = io.Copy(s, s)
		s.CloseWrite()
	})
	for _, proto := range []mesh.Protocol{mesh.ProtocolAuto, mesh.ProtocolTLS} {
		t.Run(proto.String(), func(t *testing.T) {
			r := newRig(t, proto)
			cfg := r.config(proto, at)
			cfg.Listeners = append(cfg.Listeners, mesh.Listener{
				Name: catchAll, Direction: mesh.Outbound, Protocol: mesh.ProtocolAuto, Cluster: mesh.PassthroughCluster,
			})
			cfg.Listeners[0].Address = netip.MustParseAddrPort("240.240.0.9:80")
			cfg.Clusters = append(cfg.Clusters, mesh.Cluster{Name: mesh.PassthroughCluster, Type: mesh.ClusterOriginalDst})
			listeners := cfg.Listeners[1:]
			if proto == mesh.ProtocolTLS {
				listeners[0].Protocol = mesh.ProtocolTLS
			}
			if err := r.p.Apply(cfg); err != nil {
				t.Fatal(err)
			}
			entry := tcpListen(t)
			done := make(chan error, 1)
			go func() { done <- r.p.ServeOutbound(t.Context(), rigListener{entry, at}) }()
			raw, err := net.Dial("tcp", entry.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			c := tls.Client(raw, &tls.Config{ServerName: "Shop.example.com", InsecureSkipVerify: true})
			mustWrite(t, c, "secret")
			if got := mustRead(t, c, 6); got != "secret" {
				t.Errorf("echo %q", got)
			}
			c.CloseWrite()
			mustEOF(t, c)
			c.Close()
			r.wantSeries(t, "1", "istio_tcp_connections_closed_total", "destination_service=shop.example.com", "destination_service_name=PassthroughCluster")
			r.wantSeries(t, "1", "vitrine_protocol_detection_total", "result=tls")
			entry.Close()
			<-done
		})
	}
}

func TestDetectsUnreachableDestination(t *testing.T) {
	r := newRig(t, mesh.ProtocolAuto, closedPort(t))
	r.dialReset(t)
	r.wantSeries(t, "1", "istio_tcp_connections_closed_total", "response_flags=UF")
	r.wantSeries(t, "1", "vitrine_protocol_detection_total", "result=unreachable")
}

// A connection that says nothing and goes leaves no trace in the mesh's
// metrics: nobody asked anything.
func TestDetectsSilence(t *testing.T) {
	r := newRig(t, mesh.ProtocolAuto, origin(t, echo))
	r.dial(t).Close()
	r.wantSeries(t, "1", "vitrine_protocol_detection_total", "result=closed")
	if got := r.series(t, "istio_tcp_connections_closed_total"); got != "" {
		t.Errorf("counted as a connection: %s", got)
	}
}
