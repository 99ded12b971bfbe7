//go:build interop

package interop

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// serverTLS is the TLS of a server with a certificate that nobody can verify.
func serverTLS() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		NextProtos:   []string{"http/1.1"}, MinVersion: tls.VersionTLS12,
	}, nil
}

// eitherListener accepts connections that speak TLS or not, by their first byte.
type eitherListener struct {
	net.Listener
	secure *tls.Config
}

func (l *eitherListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &eitherConn{Conn: c, secure: l.secure}, err
}

// eitherConn decides with the first Read, before which a server writes nothing.
type eitherConn struct {
	net.Conn
	secure *tls.Config
	once   sync.Once
	mu     sync.Mutex
	first  io.Reader // what a connection without TLS began with, and the rest
	inner  *tls.Conn
}

// handshake is the first byte of a TLS record that begins a connection.
const handshake = 0x16

func (c *eitherConn) decide() {
	b := make([]byte, 1)
	n, err := io.ReadFull(c.Conn, b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.first = io.MultiReader(bytes.NewReader(b[:n]), c.Conn)
	if err == nil && b[0] == handshake {
		c.inner = tls.Server(&prefixed{Conn: c.Conn, from: c.first}, c.secure)
	}
}

func (c *eitherConn) Read(b []byte) (int, error) {
	c.once.Do(c.decide)
	if c.inner != nil {
		return c.inner.Read(b)
	}
	return c.first.Read(b)
}

func (c *eitherConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	inner := c.inner
	c.mu.Unlock()
	if inner != nil {
		return inner.Write(b)
	}
	return c.Conn.Write(b)
}

// prefixed is a connection some of whose bytes were read already.
type prefixed struct {
	net.Conn
	from io.Reader
}

func (p *prefixed) Read(b []byte) (int, error) { return p.from.Read(b) }

// startOutside serves HTTPS outside the mesh, at an address that only the listener
// for everything else takes, and returns it.
func startOutside(t *testing.T) string {
	t.Helper()
	// The entry hands a connection to the listener of its port; that of the
	// listener for everything else is 15001.
	ln, err := net.Listen("tcp", "127.220.0.1:15001")
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "outside %s %s", r.Proto, r.Host)
	}))
	s.Listener.Close()
	s.Listener = ln
	s.StartTLS()
	t.Cleanup(s.Close)
	return ln.Addr().String()
}
