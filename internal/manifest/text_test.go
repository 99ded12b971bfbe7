package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

func TestSplitCommand(t *testing.T) {
	for _, tt := range []struct {
		text  string
		words []string
		err   string
	}{
		{text: ""},
		{text: " ./web  -v\t-x\n", words: []string{"./web", "-v", "-x"}},
		{text: `sh -c 'echo "$HOME" \n'`, words: []string{"sh", "-c", `echo "$HOME" \n`}},
		{text: `a"b c"'d'e`, words: []string{"ab cde"}},
		{text: `"a\"b\\c\$d\e"`, words: []string{`a"b\c$d\e`}},
		{text: `a\ b \"`, words: []string{"a b", `"`}},
		{text: `'' ""`, words: []string{"", ""}},
		{text: `end\`, words: []string{`end\`}},
		{text: `["a b", "", "c"]`, words: []string{"a b", "", "c"}},
		{text: `[1]`, err: "it begins with [ and is not a JSON list of strings"},
		{text: `'open`, err: "a quote is not closed"},
		{text: "a\x00b", err: "it holds a NUL byte"},
		{text: `["a\u0000"]`, err: "it holds a NUL byte"},
	} {
		words, err := splitCommand(tt.text)
		if got := fmt.Sprint(err); err != nil && got != tt.err || err == nil && tt.err != "" {
			t.Errorf("splitCommand(%q): %v, want %s", tt.text, err, tt.err)
		}
		if tt.err == "" {
			if diff := cmp.Diff(tt.words, words); diff != "" {
				t.Errorf("splitCommand(%q): %s", tt.text, diff)
			}
		}
	}
}

// TestExpand has the rules of Kubernetes for $(VAR).
func TestExpand(t *testing.T) {
	e := &environment{index: map[string]int{}}
	e.set(mesh.EnvVar{Name: "A", Value: "a"})
	e.set(mesh.EnvVar{Name: "EMPTY"})
	e.set(mesh.EnvVar{Name: "REF", Value: "$(A)"})
	e.set(mesh.EnvVar{Name: "POD", FieldPath: "metadata.name"})
	for in, want := range map[string]string{
		"":                "",
		"x $(A) y":        "x a y",
		"$(A)$(A)":        "aa",
		"$$(A)":           "$(A)",
		"$$$(A)":          "$a",
		"$$$$(A)":         "$$(A)",
		"$(EMPTY).":       ".",
		"$(REF)":          "$(A)", // values are not expanded again
		"$(NONE)":         "$(NONE)",
		"$()":             "$()",
		"$(A":             "$(A",
		"$A ${A} $":       "$A ${A} $",
		"$($(A))":         "$($(A))",
		"$(A)-$(NONE)-$a": "a-$(NONE)-$a",
		"n=$(POD)!":       "n=" + mesh.FieldRef("metadata.name") + "!",
	} {
		if got := e.expand(in); got != want {
			t.Errorf("expand(%q) = %q, want %q", in, got, want)
		}
	}
	field := func(path string) string { return "<" + path + ">" }
	if got := mesh.ExpandFields(e.expand("$(POD),$(POD)"), field); got != "<metadata.name>,<metadata.name>" {
		t.Errorf("fields expand to %q", got)
	}
}

// TestBooleans types words as YAML 1.1 does.
func TestBooleans(t *testing.T) {
	for word, want := range map[string]string{
		"yes": "is the boolean yes", "No": "is the boolean No", "ON": "is the boolean ON", "y": "is the boolean y",
		"1_000": "is the number 1_000", "0o17": "is the number 0o17", "1e3": "is the number 1e3",
		"yEs": "", "onn": "", "2024-01-01": "", `"yes"`: "", "'1'": "", ".inf": "", "1.2.3": "", "0x": "",
	} {
		_, diags := Load([]string{"-"}, Options{Stdin: strings.NewReader(
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  k: " + word + "\n")})
		switch {
		case want == "" && len(diags) != 0:
			t.Errorf("%s: %v", word, diags)
		case want != "" && (len(diags) != 1 || !strings.Contains(diags[0].String(), want) || diags[0].Line != 5):
			t.Errorf("%s: %v, want %q in line 5", word, diags, want)
		}
	}
}

// TestPublishedNodePorts are chosen by name, so that they survive other
// changes of the files, and never twice.
func TestPublishedNodePorts(t *testing.T) {
	service := func(name string, ports int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec:\n  type: NodePort\n  selector: {app: a}\n  ports:\n", name)
		for i := range ports {
			fmt.Fprintf(&b, "  - {name: p%d, port: %d}\n", i, i+1)
		}
		return b.String()
	}
	assigned := func(text string) map[string]string {
		objects, diags := Load([]string{"-"}, Options{Stdin: strings.NewReader(text)})
		if objects == nil {
			t.Fatal(diags)
		}
		out := map[string]string{}
		for _, s := range objects.Services {
			for _, p := range s.Ports {
				if len(p.Publish) != 1 {
					t.Fatalf("%s %s is published at %v", s.Name, p.Name, p.Publish)
				}
				address := p.Publish[0].String()
				if other := out[address]; other != "" {
					t.Errorf("%s and %s are both published at %s", other, s.Name, address)
				}
				out[address] = s.Name + " " + p.Name
			}
		}
		return out
	}
	alone := assigned(service("web", 1))
	if diff := cmp.Diff(map[string]string{"127.0.0.1:31175": "web p0"}, alone); diff != "" {
		t.Error(diff)
	}
	if many := assigned(service("big", 1500) + service("web", 1)); len(many) != 1501 {
		t.Errorf("%d addresses, want 1501", len(many))
	}
}

// TestTooManyPorts: ports that only Services name need a wire port too.
func TestTooManyPorts(t *testing.T) {
	for ports, want := range map[int]bool{mesh.MaxWirePorts - 1: true, mesh.MaxWirePorts: false} {
		var text strings.Builder
		text.WriteString(`apiVersion: apps/v1
kind: Deployment
metadata: {name: w}
spec:
  selector: {matchLabels: {app: w}}
  template:
    metadata: {labels: {app: w}}
    spec: {containers: [{name: w, command: [./w], ports: [{containerPort: 80}, {containerPort: 80, protocol: UDP}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: w}
spec:
  selector: {app: w}
  ports:
`)
		for i := range ports {
			fmt.Fprintf(&text, "  - {name: p%d, port: %d}\n", i, 1000+i)
		}
		path := filepath.Join(t.TempDir(), "w.yaml")
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		objects, diags := Load([]string{path}, Options{})
		if got := objects != nil; got != want {
			t.Errorf("%d ports of a Service beside one that is declared: loaded %v, want %v; %v", ports, got, want, diags)
		}
	}
}

// BenchmarkLoad reads 500 Deployments with a Service each.
func BenchmarkLoad(b *testing.B) {
	var text strings.Builder
	for i := range 500 {
		fmt.Fprintf(&text, `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: w%[1]d}
spec:
  selector: {matchLabels: {app: w%[1]d}}
  template:
    metadata: {labels: {app: w%[1]d}}
    spec: {containers: [{name: w, command: [./w], ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: w%[1]d}
spec: {selector: {app: w%[1]d}, ports: [{name: http, port: 8080}]}
`, i)
	}
	path := filepath.Join(b.TempDir(), "many.yaml")
	if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if objects, diags := Load([]string{path}, Options{}); objects == nil || len(objects.Sets) != 500 {
			b.Fatal(diags)
		}
	}
}
