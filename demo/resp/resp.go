// Package resp reads and writes RESP2, the protocol of Redis, as far as the
// shop's key-value store needs it: requests are arrays of bulk strings, replies
// are simple strings, errors, integers, bulk strings and arrays of those.
//
// A Conn belongs to one goroutine at a time.
package resp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
)

// Limits of what is read.
const (
	maxArray = 4096
	maxBulk  = 1 << 20
)

// Error is an error reply.
type Error string

func (e Error) Error() string { return string(e) }

// Conn is one end of a connection.
type Conn struct {
	net.Conn
	r *bufio.Reader
	w *bufio.Writer
}

// NewConn wraps a connection.
func NewConn(c net.Conn) *Conn {
	return &Conn{Conn: c, r: bufio.NewReader(c), w: bufio.NewWriter(c)}
}

// Do sends a command and reads its reply: string, int64, []any, nil, or an
// Error as err.
func (c *Conn) Do(words ...string) (any, error) {
	c.WriteArray(words)
	if err := c.Flush(); err != nil {
		return nil, err
	}
	return c.Read()
}

// Flush sends what was written.
func (c *Conn) Flush() error { return c.w.Flush() }

// WriteArray writes an array of bulk strings.
func (c *Conn) WriteArray(words []string) {
	fmt.Fprintf(c.w, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(c.w, "$%d\r\n%s\r\n", len(word), word)
	}
}

// WriteSimple writes a simple string.
func (c *Conn) WriteSimple(s string) { fmt.Fprintf(c.w, "+%s\r\n", s) }

// WriteError writes an error reply.
func (c *Conn) WriteError(s string) { fmt.Fprintf(c.w, "-ERR %s\r\n", s) }

// WriteInt writes an integer.
func (c *Conn) WriteInt(n int64) { fmt.Fprintf(c.w, ":%d\r\n", n) }

// ReadCommand reads an array of bulk strings.
func (c *Conn) ReadCommand() ([]string, error) {
	v, err := c.Read()
	if err != nil {
		return nil, err
	}
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return nil, errors.New("a command must be an array of strings")
	}
	words := make([]string, len(list))
	for i := range list {
		if words[i], ok = list[i].(string); !ok {
			return nil, errors.New("a command must be an array of strings")
		}
	}
	return words, nil
}

// Read reads one value. Arrays do not nest.
func (c *Conn) Read() (any, error) { return c.read(false) }

func (c *Conn) read(inArray bool) (any, error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return nil, errors.New("malformed line")
	}
	kind, text := line[0], string(line[1:len(line)-2])
	switch kind {
	case '+':
		return text, nil
	case '-':
		return nil, Error(text)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("malformed number: %w", err)
	}
	switch {
	case kind == ':':
		return n, nil
	case kind == '$' && n == -1, kind == '*' && n == -1:
		return nil, nil //nolint:nilnil // nil is a value of the protocol
	case kind == '$' && n >= 0 && n <= maxBulk:
		data := make([]byte, n+2)
		if _, err := io.ReadFull(c.r, data); err != nil {
			return nil, err
		}
		return string(data[:n]), nil
	case kind == '*' && n >= 0 && n <= maxArray && !inArray:
		list := make([]any, n)
		for i := range list {
			if list[i], err = c.read(true); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	return nil, fmt.Errorf("unknown value %q", kind)
}
