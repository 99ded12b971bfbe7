package envoy

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
)

// object writes m as a JSON value. Well-known types have forms of their own.
func (v *visitor) object(m Message) {
	if w, ok := m.(interface{ writeJSON(v *visitor) }); ok {
		w.writeJSON(v)
		return
	}
	v.braces(func() { m.visit(v) })
}

// typedObject writes the JSON form of an Any that holds m.
func (v *visitor) typedObject(m Message) {
	v.braces(func() {
		v.key("@type")
		v.quote(TypeURL(m))
		m.visit(v)
	})
}

func (v *visitor) braces(members func()) {
	outer := v.empty
	v.out = append(v.out, '{')
	v.empty = true
	members()
	v.out = append(v.out, '}')
	v.empty = outer
}

func (v *visitor) key(name string) {
	if !v.empty {
		v.out = append(v.out, ',')
	}
	v.empty = false
	v.quote(name)
	v.out = append(v.out, ':')
}

func (v *visitor) array(name string, n int, element func(i int)) {
	v.key(name)
	v.list(n, element)
}

func (v *visitor) list(n int, element func(i int)) {
	v.out = append(v.out, '[')
	for i := range n {
		if i > 0 {
			v.out = append(v.out, ',')
		}
		element(i)
	}
	v.out = append(v.out, ']')
}

func writeMap[V any](v *visitor, m map[string]V, value func(V)) {
	v.braces(func() {
		for _, key := range slices.Sorted(maps.Keys(m)) {
			v.key(key)
			value(m[key])
		}
	})
}

func (v *visitor) quote(s string)   { v.literal(s) }
func (v *visitor) number(f float64) { v.literal(f) }
func (v *visitor) base64(b []byte)  { v.literal(base64.StdEncoding.EncodeToString(b)) }
func (v *visitor) literal(value any) {
	b, err := json.Marshal(value)
	if err != nil {
		v.fail(err)
		return
	}
	v.out = append(v.out, b...)
}
