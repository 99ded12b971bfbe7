package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// TestTranscripts runs the stories in testdata: what a client sends, byte for
// byte, what the origin then saw, what the client got and what was recorded.
// Lines of input and output are Go strings without their quotes.
//
//	origin [until=TEXT] [close] [half-close] [reset]
//	    scripts the next answer: when until (by default the end of a head)
//	    has arrived it is written, and then the connection is closed, half
//	    closed or reset.
//	client [inbound] [pieces=N] [keep-open] [blind]
//	    sends the input, ends its side (unless keep-open), and reads to the end. With blind, what the
//	    origin saw is left out, since it may or may not have seen it yet.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/http1", func(t *testing.T, path string) {
		t.Helper()
		var answers []answer
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			t.Helper()
			switch d.Cmd {
			case "origin":
				a := answer{until: "\r\n\r\n", text: unquoteLines(t, d.Input)}
				for _, arg := range d.CmdArgs {
					switch arg.Key {
					case "until":
						a.until = unquote(t, arg.Vals[0])
					case "close":
						a.end = (*net.TCPConn).Close
					case "half-close":
						a.end = (*net.TCPConn).CloseWrite
					case "reset":
						a.end = func(c *net.TCPConn) error { c.SetLinger(0); return c.Close() }
					default:
						t.Fatalf("unknown argument %s", arg.Key)
					}
				}
				answers = append(answers, a)
				return ""
			case "client":
				script := answers
				answers = nil
				return tell(t, d, script)
			}
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		})
	})
}

// answer is one scripted step of the origin.
type answer struct {
	until, text string
	end         func(*net.TCPConn) error
}

// scriptedOrigin gives one answer after the other, whatever connection asks.
type scriptedOrigin struct {
	mu      sync.Mutex
	answers []answer
	saw     bytes.Buffer
	conns   int
}

func (o *scriptedOrigin) serve(c *net.TCPConn) {
	o.mu.Lock()
	o.conns++
	o.mu.Unlock()
	var got []byte
	buf := make([]byte, 32<<10)
	for {
		n, err := c.Read(buf)
		o.mu.Lock()
		o.saw.Write(buf[:n])
		got = append(got, buf[:n]...)
		var due []answer
		for n > 0 && len(o.answers) > 0 {
			_, rest, ok := bytes.Cut(got, []byte(o.answers[0].until))
			if !ok {
				break
			}
			due, got = append(due, o.answers[0]), rest
			o.answers = o.answers[1:]
		}
		o.mu.Unlock()
		for _, a := range due {
			io.WriteString(c, a.text)
			if a.end != nil {
				a.end(c)
			}
		}
		if err != nil {
			return
		}
	}
}

// tell runs one client command and writes down what happened.
func tell(t *testing.T, d *datadriven.TestData, answers []answer) string {
	t.Helper()
	o := &scriptedOrigin{answers: answers}
	addr := serveRaw(t, o.serve)
	var h *hop
	if d.HasArg("inbound") {
		h = startInbound(t, addr, nil)
	} else {
		h = startHop(t, webConfig(mesh.ProtocolHTTP, 0, addr), nil)
	}
	c := h.dial(t)
	request := []byte(unquoteLines(t, d.Input))
	size := len(request)
	if d.HasArg("pieces") {
		d.ScanArgs(t, "pieces", &size)
	}
	c.SetNoDelay(true)
	for len(request) > 0 {
		n := min(size, len(request))
		if _, err := c.Write(request[:n]); err != nil {
			break // refused early: the response tells why
		}
		request = request[n:]
	}
	if !d.HasArg("keep-open") {
		c.CloseWrite()
	}
	got, err := io.ReadAll(c)
	ending := ""
	if errors.Is(err, syscall.ECONNRESET) {
		ending = "client: connection reset\n"
	} else if err != nil {
		t.Fatal(err)
	}
	c.Close()
	var out strings.Builder
	o.mu.Lock()
	if !d.HasArg("blind") {
		writeLines(&out, "origin", o.saw.String())
	}
	o.mu.Unlock()
	writeLines(&out, "client", string(got))
	out.WriteString(ending)
	until(t, "all connections have ended", func() bool { return len(h.p.connections(mesh.Outbound))+len(h.p.connections(mesh.Inbound)) == 0 })
	for _, e := range h.rec.AccessLog(100) {
		line := fmt.Sprintf("record: %s %s %s %d %s %s in=%d out=%d\n", e.Method, e.Authority, e.Path, e.Code, e.Flags, e.Detail, e.BytesReceived, e.BytesSent)
		out.WriteString(localPort.ReplaceAllString(line, "LOCAL"))
	}
	return out.String()
}

var (
	randomID  = regexp.MustCompile(`x-request-id: [0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`)
	localPort = regexp.MustCompile(`127\.0\.0\.1:\d+`)
)

func writeLines(out *strings.Builder, who, text string) {
	text = randomID.ReplaceAllString(text, "x-request-id: UUID")
	text = localPort.ReplaceAllString(text, "LOCAL")
	for len(text) > 0 {
		line := text
		if i := strings.IndexByte(text, '\n'); i >= 0 {
			line = text[:i+1]
		}
		text = text[len(line):]
		quoted := strconv.Quote(line)
		if len(quoted) > 200 {
			quoted = fmt.Sprintf("%.60s… %d bytes\"", quoted, len(line))
		}
		fmt.Fprintf(out, "%s: %s\n", who, quoted[1:len(quoted)-1])
	}
}

func unquoteLines(t *testing.T, input string) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.SplitSeq(input, "\n") {
		b.WriteString(unquote(t, line))
	}
	return b.String()
}

// unquote resolves Go's escapes, and \{TEXT*N} as N times TEXT.
func unquote(t *testing.T, line string) string {
	t.Helper()
	line = repeated.ReplaceAllStringFunc(line, func(m string) string {
		g := repeated.FindStringSubmatch(m)
		n, err := strconv.Atoi(g[2])
		if err != nil {
			t.Fatal(err)
		}
		return strings.Repeat(g[1], n)
	})
	s, err := strconv.Unquote(`"` + strings.ReplaceAll(line, `"`, `\"`) + `"`)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return s
}

var repeated = regexp.MustCompile(`\{([^*{}]+)\*(\d+)\}`)
