package main

import (
	"io"
	"net"
	"time"

	"github.com/vitrine-mesh/vitrine/test/truth/internal/order"
)

// tcpConn is a connection that is kept open between orders.
type tcpConn struct{ *net.TCPConn }

// open opens Conns connections.
func (l *loads) open(w *work, o *order.Order) {
	for range o.Conns {
		c, err := net.DialTimeout("tcp", o.Addr, patience)
		if err != nil {
			w.fail(err)
			return
		}
		l.conns[o.Service] = append(l.conns[o.Service], &tcpConn{c.(*net.TCPConn)})
		w.fact("opened", 1)
	}
}

// talk sends Bytes bytes N times over each open connection and reads each echo.
func (l *loads) talk(w *work, o *order.Order) {
	data := make([]byte, o.Bytes)
	for _, c := range l.conns[o.Service] {
		_ = c.SetDeadline(time.Now().Add(patience))
		for range o.N {
			if _, err := c.Write(data); err != nil {
				w.failf("send: %v", err)
			}
			w.fact("sent", len(data))
			n, err := io.ReadFull(c, data)
			w.fact("received", n)
			if err != nil {
				w.failf("echo: %v", err)
			}
		}
	}
}

// close ends Conns of the open connections, half of them by a FIN in one
// direction first, as a client does that waits for the last answer.
func (l *loads) close(w *work, o *order.Order) {
	open := l.conns[o.Service]
	for i, c := range open[:o.Conns] {
		if i%2 == 0 {
			if err := c.CloseWrite(); err != nil {
				w.fail(err)
			}
			if n, err := io.Copy(io.Discard, c); n != 0 || err != nil {
				w.failf("after the end: %d bytes, %v", n, err)
			}
		}
		c.Close()
		w.fact("closed", 1)
	}
	l.conns[o.Service] = open[o.Conns:]
}
