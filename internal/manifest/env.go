package manifest

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// environment is the environment of one container while it is made, in the
// kubelet's order: envFrom first, then env, later entries replacing earlier
// ones, and $(VAR) seeing only what stands before it.
type environment struct {
	vars  []mesh.EnvVar
	index map[string]int
}

func (e *environment) set(v mesh.EnvVar) {
	if i, ok := e.index[v.Name]; ok {
		e.vars[i] = v
		return
	}
	e.index[v.Name] = len(e.vars)
	e.vars = append(e.vars, v)
}

// lookup is the text of a variable, in which a downward-API field is still a
// mesh.FieldRef.
func (e *environment) lookup(name string) (string, bool) {
	i, ok := e.index[name]
	if !ok {
		return "", false
	}
	if v := e.vars[i]; v.FieldPath != "" {
		return mesh.FieldRef(v.FieldPath), true
	}
	return e.vars[i].Value, true
}

// expand replaces $(NAME) by the variable's value, $$ by $, and leaves
// references to unknown variables as they are, as Kubernetes does.
func (e *environment) expand(s string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "$")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		switch {
		case strings.HasPrefix(rest, "$"):
			b.WriteByte('$')
			s = rest[1:]
		case strings.HasPrefix(rest, "("):
			name, after, closed := strings.Cut(rest[1:], ")")
			if !closed {
				b.WriteString("$(")
				s = rest[1:]
				continue
			}
			if value, ok := e.lookup(name); ok {
				b.WriteString(value)
			} else {
				b.WriteString("$(" + name + ")")
			}
			s = after
		default:
			b.WriteByte('$')
			s = rest
		}
	}
}

func (e *environment) expandAll(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = e.expand(s)
	}
	return out
}

// environment makes the environment of container c at path.
func (o *object) environment(c *corev1.Container, path string) *environment {
	e := &environment{index: map[string]int{}}
	for i := range c.EnvFrom {
		o.envFrom(e, &c.EnvFrom[i], index(path+".envFrom", i))
	}
	for i := range c.Env {
		o.envVar(e, c, i, index(path+".env", i))
	}
	return e
}

func (o *object) envFrom(e *environment, from *corev1.EnvFromSource, path string) {
	var r reference
	switch {
	case from.ConfigMapRef != nil && from.SecretRef != nil, from.ConfigMapRef == nil && from.SecretRef == nil:
		o.problem(path, "envFrom needs either configMapRef or secretRef", "write one of them")
		return
	case from.ConfigMapRef != nil:
		r = reference{kindConfigMap, from.ConfigMapRef.Name, from.ConfigMapRef.Optional, path + ".configMapRef.name"}
	default:
		r = reference{kindSecret, from.SecretRef.Name, from.SecretRef.Optional, path + ".secretRef.name"}
	}
	d := o.find(r)
	if d == nil {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(d.keys)) {
		name := from.Prefix + key
		value := d.keys[key]
		switch {
		case d.binary[key]:
		case validation.IsRelaxedEnvVarName(name) != nil:
			o.warn(path, "key "+quoted(key)+" of "+r.kind+" "+r.name+" is no variable name and is left out", "rename the key")
		case strings.IndexByte(string(value), 0) >= 0:
			o.problem(path, "key "+quoted(key)+" of "+r.kind+" "+r.name+" holds a NUL byte, which no variable can", "mount it as a file")
		default:
			e.set(mesh.EnvVar{Name: name, Value: string(value)})
		}
	}
}

func (o *object) envVar(e *environment, c *corev1.Container, i int, path string) {
	v := &c.Env[i]
	if errs := validation.IsRelaxedEnvVarName(v.Name); errs != nil {
		o.problem(path+".name", "the variable name "+quoted(v.Name)+" is not allowed", "use printable letters without =")
		return
	}
	if v.ValueFrom == nil {
		if strings.IndexByte(v.Value, 0) >= 0 {
			o.problem(path+".value", "the value of "+v.Name+" holds a NUL byte, which no variable can", "remove it")
			return
		}
		e.set(mesh.EnvVar{Name: v.Name, Value: e.expand(v.Value)})
		return
	}
	if v.Value != "" {
		o.problem(path+".valueFrom", "variable "+v.Name+" has value and valueFrom", "keep one of the two")
		return
	}
	o.envValueFrom(e, c, v, path+".valueFrom")
}

func (o *object) envValueFrom(e *environment, c *corev1.Container, v *corev1.EnvVar, path string) {
	from := v.ValueFrom
	sources := 0
	for _, set := range []bool{from.ConfigMapKeyRef != nil, from.SecretKeyRef != nil, from.FieldRef != nil, from.ResourceFieldRef != nil} {
		if set {
			sources++
		}
	}
	if sources != 1 {
		o.problem(path, "valueFrom of "+v.Name+" needs exactly one of configMapKeyRef, secretKeyRef, fieldRef and resourceFieldRef",
			"write one of them")
		return
	}
	var r reference
	var key string
	switch {
	case from.FieldRef != nil:
		if o.checkFieldPath(from.FieldRef.FieldPath, path+".fieldRef.fieldPath") {
			e.set(mesh.EnvVar{Name: v.Name, FieldPath: from.FieldRef.FieldPath})
		}
		return
	case from.ResourceFieldRef != nil:
		if value, ok := o.resourceField(c, from.ResourceFieldRef, path+".resourceFieldRef"); ok {
			e.set(mesh.EnvVar{Name: v.Name, Value: value})
		}
		return
	case from.ConfigMapKeyRef != nil:
		key = from.ConfigMapKeyRef.Key
		r = reference{kindConfigMap, from.ConfigMapKeyRef.Name, from.ConfigMapKeyRef.Optional, path + ".configMapKeyRef"}
	default:
		key = from.SecretKeyRef.Key
		r = reference{kindSecret, from.SecretKeyRef.Name, from.SecretKeyRef.Optional, path + ".secretKeyRef"}
	}
	value, ok := o.findKey(r, key)
	if !ok {
		return
	}
	if o.find(r).binary[key] {
		if r.optional == nil || !*r.optional {
			o.problem(path, "key "+quoted(key)+" of "+r.kind+" "+r.name+" is in binaryData, of which no variable is made", "put it into data, or mount it as a file")
		}
		return
	}
	if strings.IndexByte(string(value), 0) >= 0 {
		o.problem(path, "the value of "+v.Name+" holds a NUL byte, which no variable can", "mount it as a file")
		return
	}
	e.set(mesh.EnvVar{Name: v.Name, Value: string(value)})
}

var mapField = regexp.MustCompile(`^metadata\.(labels|annotations)\['[^'\x00]+'\]$`)

// checkFieldPath reports fields that no replica can fill in.
func (o *object) checkFieldPath(field, path string) bool {
	switch field {
	case "metadata.name", "metadata.namespace", "metadata.uid", "status.podIP", "status.podIPs", "status.hostIP", "status.hostIPs",
		"spec.nodeName", "spec.serviceAccountName":
		return true
	}
	if mapField.MatchString(field) {
		return true
	}
	o.problem(path, "the field "+quoted(field)+" is not known here",
		"use metadata.name, metadata.namespace, metadata.uid, metadata.labels['k'], metadata.annotations['k'], status.podIP, status.podIPs, "+
			"status.hostIP, status.hostIPs, spec.nodeName or spec.serviceAccountName")
	return false
}

// resourceField computes a request or limit that the container declares.
func (o *object) resourceField(c *corev1.Container, ref *corev1.ResourceFieldSelector, path string) (string, bool) {
	list := c.Resources.Limits
	part, name, _ := strings.Cut(ref.Resource, ".")
	if part == "requests" {
		list = c.Resources.Requests
	}
	quantity, ok := list[corev1.ResourceName(name)]
	if !ok || part != "limits" && part != "requests" {
		o.problem(path, "the resource "+quoted(ref.Resource)+" is not declared by container "+c.Name, "add it under resources")
		return "", false
	}
	divisor := ref.Divisor.MilliValue()
	if divisor <= 0 {
		divisor = 1000
	}
	milli := max(quantity.MilliValue(), 0)
	whole := milli / divisor
	if milli%divisor != 0 {
		whole++ // Kubernetes rounds up
	}
	return strconv.FormatInt(whole, 10), true
}
