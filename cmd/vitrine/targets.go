package main

import (
	"slices"
	"strings"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
)

// targets are the pods and workloads that arguments name, as the control plane
// takes them: NAME or NAMESPACE/NAME. What kubectl's users write is understood,
// too: KIND/NAME (pod, deploy, sts, job and their long forms, with or without an
// API group), and the namespace in a flag.
func targets(namespace string, args []string) []string {
	out := make([]string, 0, len(args))
	for _, arg := range args {
		if kind, name, ok := strings.Cut(arg, "/"); ok && isKind(kind) {
			arg = name
		}
		if namespace != "" && !strings.Contains(arg, "/") {
			arg = namespace + "/" + arg
		}
		out = append(out, arg)
	}
	return out
}

func isKind(word string) bool {
	word, _, _ = strings.Cut(strings.ToLower(word), ".")
	return slices.Contains([]string{
		"po", "pod", "pods", "deploy", "deployment", "deployments", "sts", "statefulset", "statefulsets", "job", "jobs",
	}, word)
}

// chosen are the pods that targets name, all if there are none, of a namespace if
// one is given; missing are the targets that name none.
func chosen(pods []daemon.Pod, namespace string, names []string) (kept []daemon.Pod, missing []string) {
	found := map[string]bool{}
	for _, p := range pods {
		if namespace != "" && p.Namespace != namespace {
			continue
		}
		wanted := len(names) == 0
		for _, t := range names {
			ns, name, ok := strings.Cut(t, "/")
			if !ok {
				ns, name = p.Namespace, t
			}
			if ns == p.Namespace && (name == p.Name || name == p.Owner) {
				wanted, found[t] = true, true
			}
		}
		if wanted {
			kept = append(kept, p)
		}
	}
	for _, t := range names {
		if !found[t] {
			missing = append(missing, t)
		}
	}
	return kept, missing
}
