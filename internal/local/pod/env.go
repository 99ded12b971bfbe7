package pod

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// environment is what a program of c sees: base (of the pod's own process),
// HOSTNAME, then the container's variables in order. The last value of a name
// wins, at the place of its first.
func environment(base []string, b *Bootstrap, c *mesh.Container) []string {
	var env []string
	at := map[string]int{}
	set := func(name, value string) {
		entry := name + "=" + value
		if i, ok := at[name]; ok {
			env[i] = entry
			return
		}
		at[name] = len(env)
		env = append(env, entry)
	}
	for _, e := range base {
		if name, value, ok := strings.Cut(e, "="); ok {
			set(name, value)
		}
	}
	if !b.Foreground {
		set("HOSTNAME", b.Workload.Name)
	}
	for _, v := range c.Env {
		if v.FieldPath != "" {
			set(v.Name, b.Field(v.FieldPath))
		} else {
			set(v.Name, mesh.ExpandFields(v.Value, b.Field))
		}
	}
	return env
}

// expandAll fills in the downward-API fields of each string.
func expandAll(in []string, b *Bootstrap) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = mesh.ExpandFields(s, b.Field)
	}
	return out
}

// Field is the value of a field of the downward API, "" for an unknown one (the
// manifest refuses those). The addresses are those inside the case, since that
// is where the program can use them.
func (b *Bootstrap) Field(path string) string {
	w := &b.Workload
	switch path {
	case "metadata.name":
		return w.Name
	case "metadata.namespace":
		return w.Namespace
	case "metadata.uid":
		return w.Namespace + "." + w.Name
	case "spec.serviceAccountName":
		return w.ServiceAccount
	case "spec.nodeName":
		return "localhost"
	case "status.podIP", "status.podIPs":
		return w.CaseIP.String()
	case "status.hostIP", "status.hostIPs":
		return "127.0.0.1"
	}
	switch path {
	case "metadata.labels":
		return fieldMap(w.Labels)
	case "metadata.annotations":
		return fieldMap(b.Set.Annotations)
	}
	if key, ok := subscript(path, "metadata.labels"); ok {
		return w.Labels[key]
	}
	if key, ok := subscript(path, "metadata.annotations"); ok {
		return b.Set.Annotations[key]
	}
	return ""
}

// subscript takes key out of field['key'].
func subscript(path, field string) (key string, ok bool) {
	rest, ok := strings.CutPrefix(path, field+"['")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "']")
}

// fieldMap formats all labels or annotations as Kubernetes does in files: one
// key="value" per line, sorted.
func fieldMap(m map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b.WriteString(k + "=" + strconv.Quote(m[k]) + "\n")
	}
	return b.String()
}
