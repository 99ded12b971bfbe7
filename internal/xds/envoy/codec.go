package envoy

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxDepth bounds the nesting of messages that are read.
const maxDepth = 64

// Message is one of the messages of this package.
type Message interface {
	// FullName is the protobuf name: envoy.config.listener.v3.Listener.
	FullName() string
	visit(v *visitor)
}

// TypeURL is the name by which an Any refers to m.
func TypeURL(m Message) string { return typePrefix + m.FullName() }

const typePrefix = "type.googleapis.com/"

// mode is what a walk over the fields of a message does.
type mode uint8

const (
	writing mode = iota
	reading
	writingJSON
	describing
)

// visitor walks over the fields of one message. In writing mode it appends to
// out; in reading mode it looks for the one field that has number num.
type visitor struct {
	mode mode
	err  error

	out []byte // writing, writingJSON

	// Only used in reading mode.
	strict  bool
	depth   int
	num     protowire.Number
	typ     protowire.Type
	scalar  uint64 // of a varint or fixed64 field
	bytes   []byte // of a length-delimited field; aliases the input
	matched bool

	empty bool // writingJSON: no member written yet in this object

	described []field
}

// field is what describing collects.
type field struct {
	num      protowire.Number
	name     string
	kind     string // protobuf kind, or full name of the message
	repeated bool
	isMap    bool
}

// Append appends the binary form of m to b. It fails on strings that are not
// UTF-8, which protobuf forbids.
func Append(b []byte, m Message) ([]byte, error) {
	v := visitor{mode: writing, out: b}
	m.visit(&v)
	if v.err != nil {
		return b, fmt.Errorf("encode %s: %w", m.FullName(), v.err)
	}
	return v.out, nil
}

// Marshal returns the binary form of m.
func Marshal(m Message) ([]byte, error) { return Append(nil, m) }

// Unmarshal reads b into the empty message m and passes over fields that it
// does not know, as protobuf does. m owns nothing of b but byte slices.
func Unmarshal(b []byte, m Message) error {
	return read(b, m, false, 0)
}

// UnmarshalStrict is Unmarshal, but an unknown field is an error: for
// configuration, where a part that is passed over changes the meaning.
func UnmarshalStrict(b []byte, m Message) error {
	return read(b, m, true, 0)
}

func read(b []byte, m Message, strict bool, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: nested deeper than %d", m.FullName(), maxDepth)
	}
	v := visitor{mode: reading, strict: strict, depth: depth}
	for len(b) > 0 {
		n, err := v.next(b)
		if err != nil {
			return fmt.Errorf("%s: %w", m.FullName(), err)
		}
		b = b[n:]
		m.visit(&v)
		if v.err != nil {
			return fmt.Errorf("%s field %d: %w", m.FullName(), v.num, v.err)
		}
		if strict && !v.matched {
			return fmt.Errorf("%s: field %d is not supported", m.FullName(), v.num)
		}
	}
	return nil
}

// next takes one field from b and returns its length.
func (v *visitor) next(b []byte) (int, error) {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return 0, protowire.ParseError(n)
	}
	v.num, v.typ, v.matched = num, typ, false
	var m int
	switch typ {
	case protowire.VarintType:
		v.scalar, m = protowire.ConsumeVarint(b[n:])
	case protowire.Fixed64Type:
		v.scalar, m = protowire.ConsumeFixed64(b[n:])
	case protowire.BytesType:
		v.bytes, m = protowire.ConsumeBytes(b[n:])
	default:
		m = protowire.ConsumeFieldValue(num, typ, b[n:])
	}
	if m < 0 {
		return 0, protowire.ParseError(m)
	}
	return n + m, nil
}

// is reports whether the field being read is number num, and checks its type.
func (v *visitor) is(num protowire.Number, typ protowire.Type) bool {
	if v.num != num {
		return false
	}
	v.matched = true
	if v.typ != typ {
		v.fail(fmt.Errorf("wire type %d, want %d", v.typ, typ))
		return false
	}
	return true
}

func (v *visitor) fail(err error) {
	if v.err == nil {
		v.err = err
	}
}

func (v *visitor) tag(num protowire.Number, typ protowire.Type) {
	v.out = protowire.AppendTag(v.out, num, typ)
}

// nested writes a length-delimited field whose content body appends.
func (v *visitor) nested(num protowire.Number, body func()) {
	v.tag(num, protowire.BytesType)
	start := len(v.out)
	v.out = append(v.out, 0)
	body()
	size := len(v.out) - start - 1
	if size < 0x80 {
		v.out[start] = byte(size)
		return
	}
	width := protowire.SizeVarint(uint64(size))
	v.out = append(v.out, make([]byte, width-1)...)
	copy(v.out[start+width:], v.out[start+1:start+1+size])
	protowire.AppendVarint(v.out[:start], uint64(size))
}

func (v *visitor) describe(num protowire.Number, name, kind string) *field {
	v.described = append(v.described, field{num: num, name: name, kind: kind})
	return &v.described[len(v.described)-1]
}

var errUTF8 = errors.New("string is not UTF-8")

func (v *visitor) utf8(s string) bool {
	if !utf8.ValidString(s) {
		v.fail(errUTF8)
		return false
	}
	return true
}

// MarshalTypedJSON returns the JSON form of an Any that holds m: the type is in
// "@type", and fields have the names of the .proto files, as Envoy's admin
// interface writes them.
func MarshalTypedJSON(m Message) ([]byte, error) {
	v := visitor{mode: writingJSON}
	v.typedObject(m)
	if v.err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.FullName(), v.err)
	}
	return v.out, nil
}
