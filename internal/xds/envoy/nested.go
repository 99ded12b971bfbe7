package envoy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// pointer is *T as a Message.
type pointer[T any] interface {
	*T
	Message
}

// message is a field that holds another message.
func message[T any, P pointer[T]](v *visitor, num protowire.Number, name string, m **T) {
	switch v.mode {
	case describing:
		v.describe(num, name, P(new(T)).FullName())
	case reading:
		if v.is(num, protowire.BytesType) {
			if *m == nil {
				*m = new(T)
			}
			v.read(P(*m))
		}
	case writing:
		if *m != nil {
			v.nested(num, func() { P(*m).visit(v) })
		}
	case writingJSON:
		if *m != nil {
			v.key(name)
			v.object(P(*m))
		}
	}
}

// messages is a repeated message field.
func messages[T any, P pointer[T]](v *visitor, num protowire.Number, name string, list *[]*T) {
	switch v.mode {
	case describing:
		v.describe(num, name, P(new(T)).FullName()).repeated = true
	case reading:
		if v.is(num, protowire.BytesType) {
			m := new(T)
			v.read(P(m))
			*list = append(*list, m)
		}
	case writing:
		for _, m := range *list {
			v.nested(num, func() { P(m).visit(v) })
		}
	case writingJSON:
		if len(*list) > 0 {
			v.array(name, len(*list), func(i int) { v.object(P((*list)[i])) })
		}
	}
}

// messageMap is a map from strings to messages, written in the order of keys.
func messageMap[T any, P pointer[T]](v *visitor, num protowire.Number, name string, m *map[string]*T) {
	switch v.mode {
	case describing:
		f := v.describe(num, name, P(new(T)).FullName())
		f.repeated, f.isMap = true, true
	case reading:
		if v.is(num, protowire.BytesType) {
			entry := mapEntry[T, P]{}
			v.read(&entry)
			if entry.value == nil {
				entry.value = new(T)
			}
			if *m == nil {
				*m = map[string]*T{}
			}
			(*m)[entry.key] = entry.value
		}
	case writing:
		for _, key := range slices.Sorted(maps.Keys(*m)) {
			entry := mapEntry[T, P]{key: key, value: (*m)[key]}
			v.nested(num, func() { entry.visit(v) })
		}
	case writingJSON:
		if len(*m) > 0 {
			v.key(name)
			writeMap(v, *m, func(value *T) { v.object(P(value)) })
		}
	}
}

type mapEntry[T any, P pointer[T]] struct {
	key   string
	value *T
}

func (*mapEntry[T, P]) FullName() string { return "map entry" }
func (e *mapEntry[T, P]) visit(v *visitor) {
	v.always(1, &e.key)
	message[T, P](v, 2, "value", &e.value)
}

// always is a string of a map entry, which is written even if it is empty.
func (v *visitor) always(num protowire.Number, s *string) {
	text := s
	v.optStr(num, "", &text)
	*s = *text
}

// stringMap is a map from strings to strings, written in the order of keys.
func stringMap(v *visitor, num protowire.Number, name string, m *map[string]string) {
	switch v.mode {
	case describing:
		f := v.describe(num, name, "string")
		f.repeated, f.isMap = true, true
	case reading:
		if v.is(num, protowire.BytesType) {
			entry := stringEntry{}
			v.read(&entry)
			if *m == nil {
				*m = map[string]string{}
			}
			(*m)[entry.key] = entry.value
		}
	case writing:
		for _, key := range slices.Sorted(maps.Keys(*m)) {
			entry := stringEntry{key: key, value: (*m)[key]}
			v.nested(num, func() { entry.visit(v) })
		}
	case writingJSON:
		if len(*m) > 0 {
			v.key(name)
			writeMap(v, *m, v.quote)
		}
	}
}

type stringEntry struct{ key, value string }

func (*stringEntry) FullName() string { return "map entry" }
func (e *stringEntry) visit(v *visitor) {
	v.always(1, &e.key)
	v.always(2, &e.value)
}

// anyOf is a google.protobuf.Any that holds one of the messages of known.
func anyOf(v *visitor, num protowire.Number, name string, m *Message) {
	switch v.mode {
	case describing:
		v.describe(num, name, anyName)
	case reading:
		if v.is(num, protowire.BytesType) {
			*m = v.readAny()
		}
	case writing:
		if *m != nil {
			v.nested(num, func() { v.writeAny(*m) })
		}
	case writingJSON:
		if *m != nil {
			v.key(name)
			v.typedObject(*m)
		}
	}
}

// anyMap is a map from strings to Any.
func anyMap(v *visitor, num protowire.Number, name string, m *map[string]Message) {
	switch v.mode {
	case describing:
		f := v.describe(num, name, anyName)
		f.repeated, f.isMap = true, true
	case reading:
		if v.is(num, protowire.BytesType) {
			entry := anyEntry{}
			v.read(&entry)
			if entry.value == nil {
				v.fail(fmt.Errorf("%s[%q] is empty", name, entry.key))
				return
			}
			if *m == nil {
				*m = map[string]Message{}
			}
			(*m)[entry.key] = entry.value
		}
	case writing:
		for _, key := range slices.Sorted(maps.Keys(*m)) {
			entry := anyEntry{key: key, value: (*m)[key]}
			v.nested(num, func() { entry.visit(v) })
		}
	case writingJSON:
		if len(*m) > 0 {
			v.key(name)
			writeMap(v, *m, v.typedObject)
		}
	}
}

type anyEntry struct {
	key   string
	value Message
}

func (*anyEntry) FullName() string { return "map entry" }
func (e *anyEntry) visit(v *visitor) {
	v.always(1, &e.key)
	anyOf(v, 2, "value", &e.value)
}

// Any is a google.protobuf.Any whose content is not read.
type Any struct {
	TypeURL string
	Value   []byte
}

const anyName = "google.protobuf.Any"

// FullName implements Message.
func (*Any) FullName() string { return anyName }

func (a *Any) visit(v *visitor) {
	v.str(1, "type_url", &a.TypeURL)
	v.raw(2, "value", &a.Value)
}

// Pack puts m into an Any.
func Pack(m Message) (*Any, error) {
	b, err := Marshal(m)
	if err != nil {
		return nil, err
	}
	return &Any{TypeURL: TypeURL(m), Value: b}, nil
}

func (v *visitor) read(m Message) {
	if err := read(v.bytes, m, v.strict, v.depth+1); err != nil {
		v.fail(err)
	}
}

func (v *visitor) readAny() Message {
	outer := Any{}
	v.read(&outer)
	if v.err != nil {
		return nil
	}
	name, _ := strings.CutPrefix(outer.TypeURL, typePrefix)
	m := known(name)
	if m == nil {
		v.fail(fmt.Errorf("message type %q is not supported", outer.TypeURL))
		return nil
	}
	if err := read(outer.Value, m, v.strict, v.depth+1); err != nil {
		v.fail(err)
	}
	return m
}

func (v *visitor) writeAny(m Message) {
	v.tag(1, protowire.BytesType)
	v.out = protowire.AppendString(v.out, TypeURL(m))
	before := len(v.out)
	v.nested(2, func() { m.visit(v) })
	if v.out[len(v.out)-1] == 0 && len(v.out) == before+2 {
		v.out = v.out[:before] // protobuf leaves empty bytes out
	}
}
