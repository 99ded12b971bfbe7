package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/daemon"
)

func TestQualified(t *testing.T) {
	pods := []daemon.Pod{{Namespace: "default", Name: "web-1", Owner: "web"}, {Namespace: "jobs", Name: "db-0", Owner: "db"}}
	for _, tc := range []struct {
		namespace string
		args      []string
		want      []string
	}{
		{"", []string{"web", "shop/web", "pod/web-1", "deploy/web", "Deployment.apps/web", "sts/kv"}, []string{"web", "shop/web", "web-1", "web", "web", "kv"}},
		{"", []string{"jobs/db-0", "job/db"}, []string{"jobs/db-0", "db"}}, // a namespace comes first
		{"shop", []string{"web", "deploy/web", "other/web"}, []string{"shop/web", "shop/web", "other/web"}},
		{"shop", nil, []string{}},
	} {
		if diff := cmp.Diff(tc.want, qualified(pods, tc.namespace, tc.args)); diff != "" {
			t.Errorf("%q %q (-want +got):\n%s", tc.namespace, tc.args, diff)
		}
	}
}

func TestChosen(t *testing.T) {
	pods := []daemon.Pod{
		{Namespace: "default", Name: "web-1", Owner: "web"},
		{Namespace: "default", Name: "web-2", Owner: "web"},
		{Namespace: "shop", Name: "web-3", Owner: "web"},
	}
	for _, tc := range []struct {
		namespace string
		names     []string
		want      string
		missing   []string
	}{
		{"", nil, "web-1 web-2 web-3", nil},
		{"shop", nil, "web-3", nil},
		{"", []string{"web"}, "web-1 web-2 web-3", nil},
		{"", []string{"default/web", "web-3"}, "web-1 web-2 web-3", nil},
		{"shop", []string{"shop/web", "shop/api"}, "web-3", []string{"shop/api"}},
		{"", []string{"default/web-3"}, "", []string{"default/web-3"}},
	} {
		kept, missing := chosen(pods, tc.namespace, tc.names)
		var list []string
		for _, p := range kept {
			list = append(list, p.Name)
		}
		names := strings.Join(list, " ")
		if kept == nil { // which JSON writes as null
			t.Errorf("%q %q: nil", tc.namespace, tc.names)
		}
		if names != tc.want || !cmp.Equal(missing, tc.missing) {
			t.Errorf("%q %q: %q, missing %q, want %q, %q", tc.namespace, tc.names, names, missing, tc.want, tc.missing)
		}
	}
}
