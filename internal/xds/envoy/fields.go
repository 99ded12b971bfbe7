package envoy

import (
	"math"
	"slices"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// field is a field that is not repeated. It is read by read; if it is present it is
// written by binary behind its tag, or by json behind its name.
func (v *visitor) field(num protowire.Number, name, kind string, wire protowire.Type, present bool, read, binary, json func()) {
	switch v.mode {
	case describing:
		v.describe(num, name, kind)
	case reading:
		if v.is(num, wire) {
			read()
		}
	case writing:
		if present {
			v.tag(num, wire)
			binary()
		}
	case writingJSON:
		if present {
			v.key(name)
			json()
		}
	}
}

func (v *visitor) varint(n uint64) { v.out = protowire.AppendVarint(v.out, n) }

// str is a string field whose empty value is not written.
func (v *visitor) str(num protowire.Number, name string, s *string) {
	v.field(num, name, "string", protowire.BytesType, *s != "" && v.writable(*s), func() { *s = v.text() },
		func() { v.out = protowire.AppendString(v.out, *s) }, func() { v.quote(*s) })
}

// optStr is a string of a oneof: its empty value differs from none.
func (v *visitor) optStr(num protowire.Number, name string, s **string) {
	v.field(num, name, "string", protowire.BytesType, *s != nil && v.writable(**s), func() { *s = new(v.text()) },
		func() { v.out = protowire.AppendString(v.out, **s) }, func() { v.quote(**s) })
}

func (v *visitor) text() string {
	s := string(v.bytes)
	v.utf8(s)
	return s
}

// writable reports whether a string may be written, if that is what is done.
func (v *visitor) writable(s string) bool {
	return v.mode != writing && v.mode != writingJSON || v.utf8(s)
}

// strs is a repeated string field.
func (v *visitor) strs(num protowire.Number, name string, list *[]string) {
	switch v.mode {
	case describing:
		v.describe(num, name, "string").repeated = true
	case reading:
		if v.is(num, protowire.BytesType) {
			*list = append(*list, v.text())
		}
	case writing:
		for _, s := range *list {
			if v.utf8(s) {
				v.tag(num, protowire.BytesType)
				v.out = protowire.AppendString(v.out, s)
			}
		}
	case writingJSON:
		if len(*list) > 0 {
			v.array(name, len(*list), func(i int) { v.quote((*list)[i]) })
		}
	}
}

// byteSlices is a repeated bytes field.
func (v *visitor) byteSlices(num protowire.Number, name string, list *[][]byte) {
	switch v.mode {
	case describing:
		v.describe(num, name, "bytes").repeated = true
	case reading:
		if v.is(num, protowire.BytesType) {
			*list = append(*list, slices.Clone(v.bytes))
		}
	case writing:
		for _, b := range *list {
			v.tag(num, protowire.BytesType)
			v.out = protowire.AppendBytes(v.out, b)
		}
	case writingJSON:
		if len(*list) > 0 {
			v.array(name, len(*list), func(i int) { v.base64((*list)[i]) })
		}
	}
}

// raw is a bytes field. When it is read it aliases the input.
func (v *visitor) raw(num protowire.Number, name string, b *[]byte) {
	v.field(num, name, "bytes", protowire.BytesType, len(*b) > 0, func() { *b = v.bytes },
		func() { v.out = protowire.AppendBytes(v.out, *b) }, func() { v.base64(*b) })
}

// boolean is a bool field; false is not written.
func (v *visitor) boolean(num protowire.Number, name string, b *bool) {
	v.field(num, name, "bool", protowire.VarintType, *b, func() { *b = v.scalar != 0 },
		func() { v.varint(protowire.EncodeBool(*b)) }, func() { v.literal(*b) })
}

// optBool is a bool of a oneof.
func (v *visitor) optBool(num protowire.Number, name string, b **bool) {
	v.field(num, name, "bool", protowire.VarintType, *b != nil, func() { *b = new(v.scalar != 0) },
		func() { v.varint(protowire.EncodeBool(**b)) }, func() { v.literal(**b) })
}

// uint32 is an unsigned field; 0 is not written.
func (v *visitor) uint32(num protowire.Number, name string, n *uint32) {
	v.field(num, name, "uint32", protowire.VarintType, *n != 0, func() { *n = uint32(v.scalar) },
		func() { v.varint(uint64(*n)) }, func() { v.number(float64(*n)) })
}

// optUint32 is an unsigned field of a oneof.
func (v *visitor) optUint32(num protowire.Number, name string, n **uint32) {
	v.field(num, name, "uint32", protowire.VarintType, *n != nil, func() { *n = new(uint32(v.scalar)) },
		func() { v.varint(uint64(**n)) }, func() { v.number(float64(**n)) })
}

// int32 is a signed field; 0 is not written.
func (v *visitor) int32(num protowire.Number, name string, n *int32) {
	v.field(num, name, "int32", protowire.VarintType, *n != 0, func() { *n = int32(v.scalar) },
		func() { v.varint(uint64(int64(*n))) }, func() { v.number(float64(*n)) })
}

// int64 is a signed field; 0 is not written. Its JSON is a string.
func (v *visitor) int64(num protowire.Number, name string, n *int64) {
	v.field(num, name, "int64", protowire.VarintType, *n != 0, func() { *n = int64(v.scalar) },
		func() { v.varint(uint64(*n)) }, func() { v.quote(strconv.FormatInt(*n, 10)) })
}

// optDouble is a double of a oneof.
func (v *visitor) optDouble(num protowire.Number, name string, f **float64) {
	v.field(num, name, "double", protowire.Fixed64Type, *f != nil, func() { *f = new(math.Float64frombits(v.scalar)) },
		func() { v.out = protowire.AppendFixed64(v.out, math.Float64bits(**f)) }, func() { v.number(**f) })
}

// enum is an enumeration; names lists its values from 0 on.
func enum[E ~int32](v *visitor, num protowire.Number, name string, e *E, names ...string) {
	v.field(num, name, "enum", protowire.VarintType, *e != 0, func() { *e = E(v.scalar) },
		func() { v.varint(uint64(int64(*e))) }, func() { v.enumName(int32(*e), names) })
}

// optEnum is an enumeration of a oneof.
func optEnum[E ~int32](v *visitor, num protowire.Number, name string, e **E, names ...string) {
	v.field(num, name, "enum", protowire.VarintType, *e != nil, func() { *e = new(E(v.scalar)) },
		func() { v.varint(uint64(int64(**e))) }, func() { v.enumName(int32(**e), names) })
}

// enumName writes an enumeration's value as JSON: its name, or the number of one
// that has none.
func (v *visitor) enumName(e int32, names []string) {
	if e < 0 || int(e) >= len(names) {
		v.number(float64(e))
		return
	}
	v.quote(names[e])
}
