package envoy

import (
	"math"
	"slices"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// str is a string field whose empty value is not written.
func (v *visitor) str(num protowire.Number, name string, s *string) {
	if v.mode == describing {
		v.describe(num, name, "string")
		return
	}
	if v.mode == reading {
		if v.is(num, protowire.BytesType) {
			*s = v.text()
		}
		return
	}
	if *s != "" {
		v.writeString(num, name, *s)
	}
}

// optStr is a string of a oneof: its empty value differs from none.
func (v *visitor) optStr(num protowire.Number, name string, s **string) {
	switch v.mode {
	case describing:
		v.describe(num, name, "string")
	case reading:
		if v.is(num, protowire.BytesType) {
			text := v.text()
			*s = &text
		}
	case writing, writingJSON:
		if *s != nil {
			v.writeString(num, name, **s)
		}
	}
}

func (v *visitor) text() string {
	s := string(v.bytes)
	v.utf8(s)
	return s
}

func (v *visitor) writeString(num protowire.Number, name, s string) {
	if !v.utf8(s) {
		return
	}
	if v.mode == writingJSON {
		v.key(name)
		v.quote(s)
		return
	}
	v.tag(num, protowire.BytesType)
	v.out = protowire.AppendString(v.out, s)
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
			v.writeString(num, name, s)
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
	switch v.mode {
	case describing:
		v.describe(num, name, "bytes")
	case reading:
		if v.is(num, protowire.BytesType) {
			*b = v.bytes
		}
	case writing:
		if len(*b) > 0 {
			v.tag(num, protowire.BytesType)
			v.out = protowire.AppendBytes(v.out, *b)
		}
	case writingJSON:
		if len(*b) > 0 {
			v.key(name)
			v.base64(*b)
		}
	}
}

// boolean is a bool field; false is not written.
func (v *visitor) boolean(num protowire.Number, name string, b *bool) {
	switch v.mode {
	case describing:
		v.describe(num, name, "bool")
	case reading:
		if v.is(num, protowire.VarintType) {
			*b = v.scalar != 0
		}
	case writing, writingJSON:
		if *b {
			v.writeBool(num, name, *b)
		}
	}
}

func (v *visitor) writeBool(num protowire.Number, name string, b bool) {
	if v.mode == writingJSON {
		v.key(name)
		v.literal(b)
		return
	}
	v.tag(num, protowire.VarintType)
	v.out = protowire.AppendVarint(v.out, protowire.EncodeBool(b))
}

// uint32 is an unsigned field; 0 is not written.
func (v *visitor) uint32(num protowire.Number, name string, n *uint32) {
	switch v.mode {
	case describing:
		v.describe(num, name, "uint32")
	case reading:
		if v.is(num, protowire.VarintType) {
			*n = uint32(v.scalar)
		}
	case writing, writingJSON:
		if *n != 0 {
			v.writeUint(num, name, *n)
		}
	}
}

// optUint32 is an unsigned field of a oneof.
func (v *visitor) optUint32(num protowire.Number, name string, n **uint32) {
	switch v.mode {
	case describing:
		v.describe(num, name, "uint32")
	case reading:
		if v.is(num, protowire.VarintType) {
			*n = new(uint32(v.scalar))
		}
	case writing, writingJSON:
		if *n != nil {
			v.writeUint(num, name, **n)
		}
	}
}

func (v *visitor) writeUint(num protowire.Number, name string, n uint32) {
	if v.mode == writingJSON {
		v.key(name)
		v.number(float64(n))
		return
	}
	v.tag(num, protowire.VarintType)
	v.out = protowire.AppendVarint(v.out, uint64(n))
}

// int32 is a signed field; 0 is not written.
func (v *visitor) int32(num protowire.Number, name string, n *int32) {
	switch v.mode {
	case describing:
		v.describe(num, name, "int32")
	case reading:
		if v.is(num, protowire.VarintType) {
			*n = int32(v.scalar)
		}
	case writing:
		if *n != 0 {
			v.tag(num, protowire.VarintType)
			v.out = protowire.AppendVarint(v.out, uint64(int64(*n)))
		}
	case writingJSON:
		if *n != 0 {
			v.key(name)
			v.number(float64(*n))
		}
	}
}

// optDouble is a double of a oneof.
func (v *visitor) optDouble(num protowire.Number, name string, f **float64) {
	switch v.mode {
	case describing:
		v.describe(num, name, "double")
	case reading:
		if v.is(num, protowire.Fixed64Type) {
			*f = new(math.Float64frombits(v.scalar))
		}
	case writing:
		if *f != nil {
			v.tag(num, protowire.Fixed64Type)
			v.out = protowire.AppendFixed64(v.out, math.Float64bits(**f))
		}
	case writingJSON:
		if *f != nil {
			v.key(name)
			v.number(**f)
		}
	}
}

// optBool is a bool of a oneof.
func (v *visitor) optBool(num protowire.Number, name string, b **bool) {
	switch v.mode {
	case describing:
		v.describe(num, name, "bool")
	case reading:
		if v.is(num, protowire.VarintType) {
			*b = new(v.scalar != 0)
		}
	case writing, writingJSON:
		if *b != nil {
			v.writeBool(num, name, **b)
		}
	}
}

// enum is an enumeration; names lists its values from 0 on.
func enum[E ~int32](v *visitor, num protowire.Number, name string, e *E, names ...string) {
	switch v.mode {
	case describing:
		v.describe(num, name, "enum")
	case reading:
		if v.is(num, protowire.VarintType) {
			*e = E(v.scalar)
		}
	case writing:
		if *e != 0 {
			v.tag(num, protowire.VarintType)
			v.out = protowire.AppendVarint(v.out, uint64(int64(*e)))
		}
	case writingJSON:
		if *e == 0 {
			return
		}
		v.key(name)
		if int(*e) < 0 || int(*e) >= len(names) {
			v.number(float64(*e))
			return
		}
		v.quote(names[*e])
	}
}

// optEnum is an enumeration of a oneof.
func optEnum[E ~int32](v *visitor, num protowire.Number, name string, e **E, names ...string) {
	switch v.mode {
	case describing:
		v.describe(num, name, "enum")
	case reading:
		if v.is(num, protowire.VarintType) {
			*e = new(E(v.scalar))
		}
	case writing:
		if *e != nil {
			v.tag(num, protowire.VarintType)
			v.out = protowire.AppendVarint(v.out, uint64(int64(**e)))
		}
	case writingJSON:
		if *e == nil {
			return
		}
		v.key(name)
		if int(**e) < 0 || int(**e) >= len(names) {
			v.number(float64(**e))
			return
		}
		v.quote(names[**e])
	}
}

// int64 is a signed field; 0 is not written.
func (v *visitor) int64(num protowire.Number, name string, n *int64) {
	switch v.mode {
	case describing:
		v.describe(num, name, "int64")
	case reading:
		if v.is(num, protowire.VarintType) {
			*n = int64(v.scalar)
		}
	case writing:
		if *n != 0 {
			v.tag(num, protowire.VarintType)
			v.out = protowire.AppendVarint(v.out, uint64(*n))
		}
	case writingJSON:
		if *n != 0 {
			v.key(name)
			v.quote(strconv.FormatInt(*n, 10))
		}
	}
}
