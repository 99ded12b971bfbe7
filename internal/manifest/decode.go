package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// maxNodes bounds how many values one object may have after its aliases are
// followed, so that a small file cannot unfold into a huge one.
const maxNodes = 200_000

// decodeFile finds every object of a file.
func (l *loader) decodeFile(f *file) {
	docs := documents(f.data)
	l.objects.Files[f.name] = len(docs) > 0
	if len(docs) == 0 {
		l.diags = append(l.diags, Diagnostic{
			File: f.name, Line: 1, Problem: "the file holds no object", Remedy: "write one or leave the file out", Warning: true,
		})
	}
	for _, doc := range docs {
		dec := yaml.NewDecoder(bytes.NewReader(yamlOfJSON(doc.data)))
		for {
			var root yaml.Node
			err := dec.Decode(&root)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				l.syntaxError(f, doc, err)
				break
			}
			if len(root.Content) == 1 {
				l.decodeObject(f, root.Content[0], doc.line-1, false)
			}
		}
	}
}

// decodeObject decodes the object, or list of objects, at n. offset is added
// to the lines of n. listed says that n is in a list already: lists do not nest.
func (l *loader) decodeObject(f *file, n *yaml.Node, offset int, listed bool) {
	n = follow(n)
	o := &object{loader: l, file: f, line: n.Line + offset, lines: map[string]int{}, unread: map[string]bool{}}
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		o.problem("", "a document must be an object with apiVersion and kind, this is "+describe(n), "see docs/manifests.md")
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		o.lines[n.Content[i].Value] = n.Content[i].Line + offset
	}
	o.apiVersion, o.kind = scalarAt(n, "apiVersion"), scalarAt(n, "kind")
	o.name, o.namespace = scalarAt(n, "metadata", "name"), scalarAt(n, "metadata", "namespace")
	if o.apiVersion == "" || o.kind == "" {
		missing := "apiVersion"
		if o.apiVersion != "" {
			missing = "kind"
		}
		o.problem("", "the document has no "+missing+", so it is not a Kubernetes object",
			"add it, or keep other YAML files out of the directory")
		return
	}
	if items := childOf(n, "items"); strings.HasSuffix(o.kind, "List") && items != nil && !listed {
		if items = follow(items); items.Kind == yaml.SequenceNode || isNull(items) { // null is empty
			for _, item := range items.Content {
				l.decodeObject(f, item, offset, true)
			}
			return
		}
	}
	if l.knownWithoutEffect(o) || !l.supported(o) {
		return
	}
	d := &decoder{object: o, offset: offset}
	if d.lostIndentation(n) {
		return
	}
	d.decode(n, reflect.ValueOf(o.value).Elem(), "")
	l.accept(o)
}

// decoder fills a value of k8s.io/api from YAML nodes. It reports every field
// that does not fit, goes on, and notes the line of each field.
type decoder struct {
	object *object
	offset int
	nodes  int
	full   bool // maxNodes was reported
}

func (d *decoder) lineOf(n *yaml.Node) int { return n.Line + d.offset }

func (d *decoder) wrong(n *yaml.Node, problem, remedy string) {
	d.object.report(d.lineOf(n), problem, remedy, false)
}

// misfit reports a value that does not fit its field.
func (d *decoder) misfit(n *yaml.Node, path, problem, remedy string) {
	d.object.unread[path] = true
	d.wrong(n, problem, remedy)
}

// lostIndentation recognises an object whose lines were all moved to the left,
// as happens to YAML copied from a web page, and says so once.
func (d *decoder) lostIndentation(n *yaml.Node) bool {
	metadata := childOf(n, "metadata")
	if metadata == nil || !isNull(follow(metadata)) || childOf(n, "name") == nil {
		return false
	}
	d.object.problem("name", "the indentation of this object is lost: metadata is empty and name stands at the left margin",
		"indent the fields below metadata, spec and template as in docs/manifests.md")
	return true
}

// decode stores n in v. path names v in diagnostics and lines.
func (d *decoder) decode(n *yaml.Node, v reflect.Value, path string) {
	n = follow(n)
	if d.nodes++; d.nodes > maxNodes {
		if !d.full {
			d.full = true
			d.wrong(n, fmt.Sprintf("the object has more than %d values", maxNodes), "split it, or use fewer aliases")
		}
		return
	}
	if isNull(n) {
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if u, ok := reflect.TypeAssert[json.Unmarshaler](v.Addr()); ok {
		d.decodeJSON(n, u, path)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.decodeStruct(n, v, path)
	case reflect.Map:
		d.decodeMap(n, v, path)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			d.decodeBytes(n, v, path)
			return
		}
		d.decodeSlice(n, v, path)
	default:
		d.decodeScalar(n, v, path)
	}
}

func (d *decoder) decodeStruct(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.misfit(n, path, orObject(path)+" must be a mapping of fields, is "+describe(n), "check the indentation")
		return
	}
	fields := map[string]reflect.Value{}
	collectFields(v, fields)
	d.eachEntry(n, path, func(key, value *yaml.Node) {
		name := join(path, key.Value)
		field, ok := fields[key.Value]
		if !ok {
			d.unknownField(key, name, fields)
			return
		}
		d.object.lines[name] = d.lineOf(key)
		d.decode(value, field, name)
	})
}

func (d *decoder) unknownField(key *yaml.Node, name string, fields map[string]reflect.Value) {
	remedy := "remove it or correct its name"
	if near := nearest(key.Value, fields); near != "" {
		remedy = "did you mean " + near + "?"
	}
	d.wrong(key, "unknown field "+name, remedy)
}

// collectFields maps JSON names to the fields of a struct, with those of
// inlined structs.
func collectFields(v reflect.Value, into map[string]reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "" || strings.Contains(options, "inline"):
			collectFields(v.Field(i), into)
		case name != "" && name != "-":
			into[name] = v.Field(i)
		}
	}
}

// eachEntry calls fn for every entry of a mapping, with those merged in by
// "<<" that are not overridden, and reports keys that are written twice.
func (d *decoder) eachEntry(n *yaml.Node, path string, fn func(key, value *yaml.Node)) {
	seen := map[string]*yaml.Node{}
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := follow(n.Content[i]), n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			d.wrong(key, "a key of "+orObject(path)+" must be a word, is "+describe(key), "quote keys that begin with a special character")
			continue
		}
		if key.Value == "<<" && key.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 {
			merged = append(merged, value)
			continue
		}
		if first, twice := seen[key.Value]; twice {
			d.wrong(key, fmt.Sprintf("field %s is written twice, first in line %d", join(path, key.Value), d.lineOf(first)),
				"keep one of the two")
			continue
		}
		seen[key.Value] = key
		fn(key, value)
	}
	for _, value := range merged {
		d.eachMerged(value, seen, fn)
	}
}

func (d *decoder) eachMerged(n *yaml.Node, seen map[string]*yaml.Node, fn func(key, value *yaml.Node)) {
	n = follow(n)
	if d.nodes++; d.nodes > maxNodes {
		return
	}
	switch n.Kind {
	case yaml.SequenceNode:
		for _, item := range n.Content {
			d.eachMerged(item, seen, fn)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := follow(n.Content[i]), n.Content[i+1]
			if key.Kind != yaml.ScalarNode || seen[key.Value] != nil {
				continue
			}
			seen[key.Value] = key
			if key.Value == "<<" {
				d.eachMerged(value, seen, fn)
				continue
			}
			fn(key, value)
		}
	default:
		d.wrong(n, "<< must name a mapping, is "+describe(n), "write << : *anchor")
	}
}

func (d *decoder) decodeMap(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.misfit(n, path, path+" must be a mapping, is "+describe(n), "check the indentation")
		return
	}
	m := reflect.MakeMap(v.Type())
	d.eachEntry(n, path, func(key, value *yaml.Node) {
		name := mapKey(path, key.Value)
		d.object.lines[name] = d.lineOf(key)
		elem := reflect.New(v.Type().Elem()).Elem()
		d.decode(value, elem, name)
		m.SetMapIndex(reflect.ValueOf(key.Value).Convert(v.Type().Key()), elem)
	})
	v.Set(m)
}

func (d *decoder) decodeSlice(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.misfit(n, path, path+" must be a list, is "+describe(n), `begin each entry with "- "`)
		return
	}
	s := reflect.MakeSlice(v.Type(), 0, min(len(n.Content), 1024))
	for i, item := range n.Content {
		name := index(path, i)
		d.object.lines[name] = d.lineOf(item)
		elem := reflect.New(v.Type().Elem()).Elem()
		d.decode(item, elem, name)
		s = reflect.Append(s, elem)
	}
	v.Set(s)
}

// decodeJSON hands n to a type that reads itself: quantities, times and values
// that are a number or a word.
func (d *decoder) decodeJSON(n *yaml.Node, u json.Unmarshaler, path string) {
	value, ok := d.plain(n)
	if !ok {
		return
	}
	data, err := json.Marshal(value)
	if err == nil {
		err = u.UnmarshalJSON(data)
	}
	if err != nil {
		d.misfit(n, path, fmt.Sprintf("%s has the wrong value %s: %v", orObject(path), shorten(string(data)), err), "see docs/manifests.md")
	}
}

// plain turns n into what encoding/json writes.
func (d *decoder) plain(n *yaml.Node) (any, bool) {
	n = follow(n)
	if d.nodes++; d.nodes > maxNodes {
		return nil, false
	}
	switch n.Kind {
	case yaml.MappingNode:
		m, all := map[string]any{}, true
		d.eachEntry(n, "", func(key, value *yaml.Node) {
			var ok bool
			m[key.Value], ok = d.plain(value)
			all = all && ok
		})
		return m, all
	case yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			value, ok := d.plain(item)
			if !ok {
				return nil, false
			}
			list = append(list, value)
		}
		return list, true
	case yaml.ScalarNode:
		return scalarValue(n), true
	default:
		return nil, false
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func orObject(path string) string {
	if path == "" {
		return "the object"
	}
	return path
}
