package main

import (
	"context"
	"slices"
	"strings"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
)

// targets are the pods and workloads that arguments name, as the control plane
// takes them: NAME or NAMESPACE/NAME. What kubectl's users write is understood,
// too: KIND/NAME (pod, deploy, sts, job and their long forms, with or without an
// API group), unless a namespace is called so, and the namespace in a flag.
func (c *cli) targets(ctx context.Context, namespace string, args []string) ([]string, error) {
	if !slices.ContainsFunc(args, func(arg string) bool { return kindOf(arg) != "" }) {
		return qualified(nil, namespace, args), nil
	}
	pods, err := c.client().Pods(ctx)
	if err != nil {
		return nil, err
	}
	return qualified(pods, namespace, args), nil
}

func qualified(pods []daemon.Pod, namespace string, args []string) []string {
	out := make([]string, 0, len(args))
	for _, arg := range args {
		if kind := kindOf(arg); kind != "" && !slices.ContainsFunc(pods, func(p daemon.Pod) bool { return p.Namespace == kind }) {
			arg = strings.TrimPrefix(arg, kind+"/")
		}
		if namespace != "" && !strings.Contains(arg, "/") {
			arg = namespace + "/" + arg
		}
		out = append(out, arg)
	}
	return out
}

// kindOf is what stands before the slash of arg if that is a word for a kind.
func kindOf(arg string) string {
	kind, _, ok := strings.Cut(arg, "/")
	word, _, _ := strings.Cut(strings.ToLower(kind), ".")
	if !ok || !slices.Contains([]string{
		"po", "pod", "pods", "deploy", "deployment", "deployments", "sts", "statefulset", "statefulsets", "job", "jobs",
	}, word) {
		return ""
	}
	return kind
}

// chosen are the pods that targets name, all if there are none, of a namespace if
// one is given; missing are the targets that name none.
func chosen(pods []daemon.Pod, namespace string, names []string) (kept []daemon.Pod, missing []string) {
	kept = []daemon.Pod{}
	found := map[string]bool{}
	for _, p := range pods {
		if namespace != "" && p.Namespace != namespace {
			continue
		}
		wanted := len(names) == 0
		for _, t := range names {
			if p.Named(t) {
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
