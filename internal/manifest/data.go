package manifest

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// mapData is the content of a ConfigMap or Secret.
type mapData struct {
	keys   map[string][]byte
	binary map[string]bool // keys that can be mounted only, as the kubelet does it (binaryData)
}

// index finds what other objects refer to by name.
func (l *loader) index() {
	l.configMaps, l.secrets, l.accounts = map[string]*mapData{}, map[string]*mapData{}, map[string]bool{}
	for _, o := range l.found {
		switch value := o.value.(type) {
		case *corev1.ConfigMap:
			l.configMaps[o.key()] = o.configMap(value)
		case *corev1.Secret:
			l.secrets[o.key()] = o.secret(value)
		case *corev1.ServiceAccount:
			l.accounts[o.key()] = true
		}
	}
}

func (o *object) configMap(m *corev1.ConfigMap) *mapData {
	d := &mapData{keys: map[string][]byte{}, binary: map[string]bool{}}
	for _, key := range slices.Sorted(maps.Keys(m.Data)) {
		o.checkKey("data", key)
		d.keys[key] = []byte(m.Data[key])
	}
	for _, key := range slices.Sorted(maps.Keys(m.BinaryData)) {
		o.checkKey("binaryData", key)
		if _, twice := d.keys[key]; twice {
			o.problem(mapKey("binaryData", key), "key "+quoted(key)+" is in data and in binaryData", "keep one of the two")
		}
		d.keys[key], d.binary[key] = m.BinaryData[key], true
	}
	return d
}

// secret applies Kubernetes' rule that stringData overrides data.
func (o *object) secret(s *corev1.Secret) *mapData {
	d := &mapData{keys: map[string][]byte{}}
	for _, key := range slices.Sorted(maps.Keys(s.Data)) {
		o.checkKey("data", key)
		d.keys[key] = s.Data[key]
	}
	for _, key := range slices.Sorted(maps.Keys(s.StringData)) {
		o.checkKey("stringData", key)
		d.keys[key] = []byte(s.StringData[key])
	}
	return d
}

// checkKey matters for safety too: a key becomes a file name.
func (o *object) checkKey(path, key string) {
	if validation.IsConfigMapKey(key) != nil {
		o.problem(mapKey(path, key), "the key "+quoted(key)+" is not allowed",
			"use at most 253 letters, digits, dashes, underscores and dots")
	}
}

// reference is one mention of a ConfigMap or Secret by another object.
type reference struct {
	kind     string // kindConfigMap or kindSecret
	name     string
	optional *bool
	path     string // of the mention
}

// find resolves r. A missing object is reported unless it is optional; nil
// means that there is nothing to read.
func (o *object) find(r reference) *mapData {
	all := o.loader.configMaps
	if r.kind == kindSecret {
		all = o.loader.secrets
	}
	if r.name == "" {
		o.problem(r.path, "the "+r.kind+" is not named", "write its name")
		return nil
	}
	if d := all[o.namespace+"/"+r.name]; d != nil {
		return d
	}
	if r.optional != nil && *r.optional {
		return nil
	}
	names := map[string]bool{}
	for _, other := range o.loader.found {
		if other.kind == r.kind && other.namespace == o.namespace {
			names[other.name] = true
		}
	}
	remedy := "add it to the files, or write optional: true"
	if near := nearest(r.name, names); near != "" {
		remedy = "did you mean " + near + "?"
	}
	o.problem(r.path, r.kind+" "+quoted(r.name)+" does not exist in namespace "+o.namespace, remedy)
	return nil
}

// findKey resolves one key of r; ok is false if there is no value.
func (o *object) findKey(r reference, key string) (value []byte, ok bool) {
	d := o.find(r)
	if d == nil {
		return nil, false
	}
	value, ok = d.keys[key]
	if !ok && (r.optional == nil || !*r.optional) {
		remedy := "add the key, or write optional: true"
		if near := nearest(key, d.keys); near != "" {
			remedy = "did you mean " + near + "?"
		}
		o.problem(r.path, r.kind+" "+quoted(r.name)+" has no key "+quoted(key), remedy)
	}
	return value, ok
}
