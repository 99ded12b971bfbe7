package pod

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// environment is what a program of c sees: base (of the pod's own process),
// HOSTNAME, PWD, then the container's variables in order. The last value of a name
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
		if name, value, ok := strings.Cut(e, "="); ok && (b.Foreground || name != "OLDPWD") {
			set(name, value)
		}
	}
	if !b.Foreground {
		set("HOSTNAME", b.Workload.Name)
		if c.Dir != "" {
			set("PWD", c.Dir)
		}
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
		return b.uid()
	case "spec.serviceAccountName":
		return w.ServiceAccount
	case "spec.nodeName":
		return "localhost"
	case "status.podIP":
		return w.CaseIP.String()
	case "status.podIPs":
		if w.CaseIP6.IsValid() {
			return w.CaseIP.String() + "," + w.CaseIP6.String()
		}
		return w.CaseIP.String()
	case "status.hostIP", "status.hostIPs":
		return "127.0.0.1"
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

// uid is a UUID (RFC 9562, version 8) that no other pod has, not even a later one
// of the same name.
func (b *Bootstrap) uid() string {
	h := sha256.Sum256([]byte(b.Workload.Key() + " " + b.Created.UTC().Format(time.RFC3339Nano)))
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// subscript takes key out of field['key'].
func subscript(path, field string) (key string, ok bool) {
	rest, ok := strings.CutPrefix(path, field+"['")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "']")
}

// fieldMap formats all labels or annotations as the kubelet does in files: one
// key="value" per line, sorted, the last line without a line feed.
func fieldMap(m map[string]string) string {
	var lines []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, k+"="+strconv.Quote(m[k]))
	}
	return strings.Join(lines, "\n")
}
