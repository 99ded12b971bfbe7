// Command kv is the shop's key-value store: hashes in memory, served by the
// protocol of Redis on port 6379.
package main

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/vitrine-mesh/vitrine/demo/program"
	"github.com/vitrine-mesh/vitrine/demo/resp"
)

func main() {
	ctx, cancel := program.Context()
	defer cancel()
	program.Exit(serve(ctx))
}

type store struct {
	mu     sync.Mutex
	hashes map[string]map[string]int64
}

func serve(ctx context.Context) error {
	l, err := program.Listen("kv", "6379")
	if err != nil {
		return err
	}
	s := &store{hashes: map[string]map[string]int64{}}
	var conns sync.WaitGroup
	defer conns.Wait()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		conns.Go(func() { s.serve(ctx, c) })
	}
}

func (s *store) serve(ctx context.Context, c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	conn := resp.NewConn(c)
	for {
		words, err := conn.ReadCommand()
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				conn.WriteError(err.Error())
				_ = conn.Flush() // the connection ends in any case
			}
			return
		}
		s.do(conn, words)
		if conn.Flush() != nil {
			return
		}
	}
}

// do answers one command.
func (s *store) do(conn *resp.Conn, words []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	args := words[1:]
	switch name := strings.ToUpper(words[0]); {
	case name == "PING" && len(args) == 0:
		conn.WriteSimple("PONG")
	case name == "DBSIZE" && len(args) == 0:
		conn.WriteInt(int64(len(s.hashes)))
	case name == "DEL" && len(args) == 1:
		n := int64(0)
		if _, ok := s.hashes[args[0]]; ok {
			n = 1
		}
		delete(s.hashes, args[0])
		conn.WriteInt(n)
	case name == "HINCRBY" && len(args) == 3:
		by, err := strconv.ParseInt(args[2], 10, 64)
		if err != nil {
			conn.WriteError("value is not an integer")
			return
		}
		if s.hashes[args[0]] == nil {
			s.hashes[args[0]] = map[string]int64{}
		}
		s.hashes[args[0]][args[1]] += by
		conn.WriteInt(s.hashes[args[0]][args[1]])
	case name == "HGETALL" && len(args) == 1:
		var list []string
		for field, n := range s.hashes[args[0]] {
			list = append(list, field, strconv.FormatInt(n, 10))
		}
		conn.WriteArray(list)
	default:
		conn.WriteError("unknown command " + strconv.Quote(words[0]))
	}
}
