package vitrine_test

import (
	"go/ast"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestControlPlaneMetricsDocumented holds the section of docs/metrics.md on the
// control plane against the metrics that its packages define, in both
// directions: name, type and labels. (The proxy's are held by package telemetry.)
func TestControlPlaneMetricsDocumented(t *testing.T) {
	doc, err := os.ReadFile("docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(doc), "\n## Metrics of the control plane\n")
	if !ok {
		t.Fatal("docs/metrics.md has no section on the control plane")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]string{}
	row := regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| (counter|gauge|histogram) \\|[^|]*\\|([^|]*)\\|")
	for _, m := range row.FindAllStringSubmatch(section, -1) {
		documented[m[1]] = strings.TrimSpace(m[2] + " " + strings.TrimSpace(strings.ReplaceAll(m[3], "`", "")))
	}
	defined := map[string]string{}
	for dir, files := range packages(t) {
		if !slices.Contains([]string{"internal/control", "internal/xds/ads", "internal/local", "internal/metricstore"}, dir) {
			continue
		}
		for name, file := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					if name, form := metricOf(call); name != "" {
						defined[name] = form
					}
				}
				return true
			})
		}
	}
	if diff := cmp.Diff(documented, defined); diff != "" {
		t.Errorf("docs/metrics.md differs from what is defined (-documented +defined):\n%s", diff)
	}
}

// metricOf recognizes prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: …}, …)
// and its like, and write(name, kind, …) of what is written by hand. form is
// the type and the sorted labels.
func metricOf(call *ast.CallExpr) (name, form string) {
	var labels []string
	switch f := call.Fun.(type) {
	case *ast.Ident:
		if f.Name == "write" && len(call.Args) > 2 {
			if kind := text(call.Args[1]); kind != "" {
				return text(call.Args[0]), kind + " container, pod, namespace"
			}
		}
		return "", ""
	case *ast.SelectorExpr:
		pkg, ok := f.X.(*ast.Ident)
		if !ok || pkg.Name != "prometheus" || len(call.Args) == 0 {
			return "", ""
		}
		form = strings.TrimPrefix(f.Sel.Name, "New")
		form = strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(form, "Vec"), "Func"))
	default:
		return "", ""
	}
	opts, ok := call.Args[0].(*ast.CompositeLit)
	if !ok {
		return "", ""
	}
	for _, e := range opts.Elts {
		field, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		key, ok := field.Key.(*ast.Ident)
		if !ok {
			continue
		}
		switch list, _ := field.Value.(*ast.CompositeLit); key.Name {
		case "Name":
			name = text(field.Value)
		case "ConstLabels":
			for _, l := range list.Elts {
				if kv, ok := l.(*ast.KeyValueExpr); ok {
					labels = append(labels, text(kv.Key))
				}
			}
		}
	}
	if len(call.Args) > 1 {
		if list, ok := call.Args[1].(*ast.CompositeLit); ok {
			for _, l := range list.Elts {
				labels = append(labels, text(l))
			}
		}
	}
	return name, strings.TrimSpace(form + " " + strings.Join(labels, ", "))
}

// text is the value of a string literal, "" for anything else.
func text(e ast.Expr) string {
	lit, ok := e.(*ast.BasicLit)
	if !ok {
		return ""
	}
	s, err := strconv.Unquote(lit.Value)
	if err != nil {
		return ""
	}
	return s
}
