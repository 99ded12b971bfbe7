package pod

import (
	"strings"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// environment is what a program of w sees: base (of the pod's own process),
// HOSTNAME, then the container's variables in order. The last value of a name
// wins, at the place of its first.
//
// The manifest cannot expand references to downward-API variables, since their
// values exist only now: $(NAME) of such a name is expanded here, in values and
// in args.
func environment(base []string, b *Bootstrap, c *mesh.Container) (env []string, expand func(string) string) {
	var pairs []string
	for _, v := range c.Env {
		if v.FieldPath != "" {
			pairs = append(pairs, "$("+v.Name+")", downward(b, v.FieldPath))
		}
	}
	expand = strings.NewReplacer(pairs...).Replace

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
			set(v.Name, downward(b, v.FieldPath))
		} else {
			set(v.Name, expand(v.Value))
		}
	}
	return env, expand
}

// downward is the value of a field of the downward API, "" for an unknown one
// (the manifest refuses those). The addresses are those inside the case, since
// that is where the program can use them.
func downward(b *Bootstrap, path string) string {
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
