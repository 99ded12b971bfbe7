package proxy

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// lockedBuffer may be written while it is read.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Inbound connections beyond the limit are closed at once and counted; the log is
// told once, and new ones are served when others have ended.
func TestInboundConnectionsAreBounded(t *testing.T) {
	const limit, beyond = 4, 5
	var log lockedBuffer
	h := startInbound(t, serveRaw(t, kilobyte), func(o *Options) {
		o.MaxInbound, o.Log = limit, slog.New(slog.NewTextHandler(&log, nil))
	})
	for range limit {
		c := h.dial(t)
		defer c.Close()
	}
	open := func() int64 { return h.p.open[mesh.Inbound].Load() }
	until(t, "all are open", func() bool { return open() == limit })
	for range beyond {
		if n, err := h.dial(t).Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("read %d bytes, %v, from a connection too many", n, err)
		}
	}
	figures := func() string {
		var b bytes.Buffer
		if err := h.rec.WriteText(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if !strings.Contains(figures(), "\nvitrine_connections_refused_total 5\n") {
		t.Error("5 refused connections are not counted")
	}
	for _, c := range h.p.connections(mesh.Inbound)[:2] {
		c.abort()
	}
	until(t, "two have ended", func() bool { return open() == limit-2 })
	c := h.dial(t)
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200 ") {
		t.Errorf("got %.40q, %v", got, err)
	}
	if got := log.String(); strings.Count(got, "are refused") != 1 || strings.Count(got, "accepted again") != 1 {
		t.Errorf("log:\n%s", got)
	}
}
