package envoy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a google.protobuf.Duration. It holds every time.Duration.
type Duration struct {
	Seconds int64
	Nanos   int32
}

// NewDuration converts d.
func NewDuration(d time.Duration) *Duration {
	return &Duration{Seconds: int64(d / time.Second), Nanos: int32(d % time.Second)}
}

// Duration converts d back; it fails when d is out of bounds or malformed.
func (d *Duration) Duration() (time.Duration, error) {
	mixed := (d.Seconds > 0 && d.Nanos < 0) || (d.Seconds < 0 && d.Nanos > 0)
	if mixed || d.Nanos <= -1e9 || d.Nanos >= 1e9 || d.Seconds > math.MaxInt64/int64(time.Second)-1 || d.Seconds < math.MinInt64/int64(time.Second)+1 {
		return 0, fmt.Errorf("duration of %d s and %d ns is out of bounds", d.Seconds, d.Nanos)
	}
	return time.Duration(d.Seconds)*time.Second + time.Duration(d.Nanos), nil
}

// FullName implements Message.
func (*Duration) FullName() string { return "google.protobuf.Duration" }

func (d *Duration) visit(v *visitor) {
	v.int64(1, "seconds", &d.Seconds)
	v.int32(2, "nanos", &d.Nanos)
}

func (d *Duration) writeJSON(v *visitor) {
	s := strconv.FormatInt(d.Seconds, 10)
	nanos := d.Nanos
	if nanos < 0 {
		nanos = -nanos
		if d.Seconds == 0 {
			s = "-0"
		}
	}
	if nanos != 0 {
		s += "." + strings.TrimRight(fmt.Sprintf("%09d", nanos), "0")
	}
	v.quote(s + "s")
}

// BoolValue is a bool that may be missing.
type BoolValue struct{ Value bool }

// FullName implements Message.
func (*BoolValue) FullName() string       { return "google.protobuf.BoolValue" }
func (b *BoolValue) visit(v *visitor)     { v.boolean(1, "value", &b.Value) }
func (b *BoolValue) writeJSON(v *visitor) { v.literal(b.Value) }

// UInt32Value is a number that may be missing.
type UInt32Value struct{ Value uint32 }

// FullName implements Message.
func (*UInt32Value) FullName() string       { return "google.protobuf.UInt32Value" }
func (n *UInt32Value) visit(v *visitor)     { v.uint32(1, "value", &n.Value) }
func (n *UInt32Value) writeJSON(v *visitor) { v.number(float64(n.Value)) }

// Struct is a JSON object.
type Struct struct{ Fields map[string]*Value }

// FullName implements Message.
func (*Struct) FullName() string { return "google.protobuf.Struct" }

func (s *Struct) visit(v *visitor) {
	messageMap(v, 1, "fields", &s.Fields)
}

func (s *Struct) writeJSON(v *visitor) {
	writeMap(v, s.Fields, func(value *Value) { value.writeJSON(v) })
}

// Value is a JSON value: null if no field is set.
type Value struct {
	Null   *NullValue
	Number *float64
	String *string
	Bool   *bool
	Struct *Struct
	List   *ListValue
}

// NullValue is JSON's null; its only value is 0.
type NullValue int32

// StringValue is s as a Value.
func StringValue(s string) *Value { return &Value{String: &s} }

// NumberValue is f as a Value.
func NumberValue(f float64) *Value { return &Value{Number: &f} }

// Text is the string in value; "" if there is none.
func (value *Value) Text() string {
	if value == nil || value.String == nil {
		return ""
	}
	return *value.String
}

// FullName implements Message.
func (*Value) FullName() string { return "google.protobuf.Value" }

func (value *Value) visit(v *visitor) {
	optEnum(v, 1, "null_value", &value.Null, "NULL_VALUE")
	v.optDouble(2, "number_value", &value.Number)
	v.optStr(3, "string_value", &value.String)
	v.optBool(4, "bool_value", &value.Bool)
	message(v, 5, "struct_value", &value.Struct)
	message(v, 6, "list_value", &value.List)
}

func (value *Value) writeJSON(v *visitor) {
	switch {
	case value.Number != nil:
		v.number(*value.Number)
	case value.String != nil:
		v.quote(*value.String)
	case value.Bool != nil:
		v.literal(*value.Bool)
	case value.Struct != nil:
		value.Struct.writeJSON(v)
	case value.List != nil:
		v.list(len(value.List.Values), func(i int) { value.List.Values[i].writeJSON(v) })
	default:
		v.literal(nil)
	}
}

// ListValue is a JSON array.
type ListValue struct{ Values []*Value }

// FullName implements Message.
func (*ListValue) FullName() string { return "google.protobuf.ListValue" }

func (l *ListValue) visit(v *visitor) {
	messages(v, 1, "values", &l.Values)
}
