package resp

import (
	"bytes"
	"io"
	"net"
	"reflect"
	"testing"
)

// memory is a connection that reads in and writes out.
type memory struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (m *memory) Read(b []byte) (int, error)  { return m.in.Read(b) }
func (m *memory) Write(b []byte) (int, error) { return m.out.Write(b) }

// FuzzReadCommand wants that a command that was read is written and read again
// as the same words.
func FuzzReadCommand(f *testing.F) {
	for _, s := range []string{"*1\r\n$4\r\nPING\r\n", "*2\r\n$3\r\nDEL\r\n$0\r\n\r\n", "*1\r\n*1\r\n", "*-1\r\n", "$9999999999\r\n", "*4097\r\n", "+\r\n", "\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		words, err := NewConn(&memory{in: bytes.NewReader(data)}).ReadCommand()
		if err != nil {
			return
		}
		m := &memory{}
		w := NewConn(m)
		w.WriteArray(words)
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		again, err := NewConn(&memory{in: &m.out}).ReadCommand()
		if err != nil || !reflect.DeepEqual(words, again) {
			t.Errorf("%q was written and read as %q (%v)", words, again, err)
		}
	})
}
