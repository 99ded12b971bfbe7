package vitrine_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/vitrine-mesh/vitrine/"

// mayImport is the import table of the design: package (below internal/ or
// cmd/) to the packages of ours that it may import. A package that is not here
// may not exist; an edge that no file uses is an error too, so that the table
// cannot rot.
var mayImport = map[string][]string{
	"cmd/vitrine":          {"internal/daemon", "internal/mesh"},
	"cmd/vitrine-proxy":    {"internal/intercept", "internal/sidecar"},
	"internal/admin":       {"internal/loopback", "internal/mesh"},
	"internal/control":     {"internal/durable", "internal/mesh"},
	"internal/daemon":      {"internal/control", "internal/durable", "internal/graph", "internal/intercept", "internal/local", "internal/local/pod", "internal/loopback", "internal/manifest", "internal/mesh", "internal/metricstore", "internal/xds/ads"},
	"internal/detect":      {},
	"internal/durable":     {}, // a leaf: four packages replace files, each did it in its own way
	"internal/graph":       {"internal/mesh"},
	"internal/intercept":   {},
	"internal/local":       {"internal/local/pod", "internal/mesh"},
	"internal/local/pod":   {"internal/durable", "internal/mesh"}, // the half of local that runs beside a program: kept small
	"internal/loopback":    {},                                    // a leaf: both processes serve HTTP without a password on loopback
	"internal/manifest":    {"internal/mesh"},
	"internal/mesh":        {},
	"internal/meshtest":    {"internal/daemon"}, // the whole mesh, as its command line drives it
	"internal/metricstore": {},
	"internal/proxy":       {"internal/detect", "internal/mesh", "internal/proxy/http1", "internal/route", "internal/telemetry", "internal/upstream"},
	"internal/proxy/http1": {}, // the codec alone: pure, fuzzed, knows no mesh
	"internal/route":       {"internal/mesh"},
	// The composition root of vitrine-proxy: daemon links Prometheus (docs/adr/0001).
	"internal/sidecar":   {"internal/admin", "internal/intercept", "internal/local/pod", "internal/loopback", "internal/mesh", "internal/proxy", "internal/telemetry", "internal/xds"},
	"internal/telemetry": {"internal/mesh"},
	"internal/upstream":  {"internal/mesh"},
	"internal/xds":       {"internal/durable", "internal/mesh", "internal/xds/envoy"},
	"internal/xds/ads":   {"internal/mesh", "internal/xds", "internal/xds/envoy"}, // the server alone: proxies do not link it
	"internal/xds/envoy": {},                                                      // Envoy's messages, written by hand (docs/adr/0002)
}

// onlyIn names, for each heavy dependency, the packages that may import it.
var onlyIn = map[string][]string{
	"github.com/envoyproxy/go-control-plane": {}, // the oracle of tests
	"github.com/google/nftables":             {"internal/intercept"},
	"github.com/prometheus/prometheus":       {"internal/metricstore"},
	"github.com/vishvananda/netlink":         {"internal/intercept"},
	"google.golang.org/grpc":                 {"internal/xds/ads"},
	"k8s.io/api":                             {"internal/manifest"},
	"k8s.io/apimachinery":                    {"internal/manifest"},
}

// drawers are names that say nothing about their content.
var drawers = []string{"util", "utils", "common", "helpers", "helper", "misc", "shared", "base", "types", "models"}

// TestLayers holds every non-test import of ours against the table.
func TestLayers(t *testing.T) {
	used := map[string]map[string]bool{}
	for dir, files := range packages(t) {
		if dir == "." || dir == "demo" || strings.HasPrefix(dir, "demo/") || strings.HasPrefix(dir, "test/") {
			continue
		}
		allowed, known := mayImport[dir]
		if !known {
			t.Errorf("%s is not in mayImport: give it a layer (docs/ARCHITECTURE.md)", dir)
			continue
		}
		if slices.Contains(drawers, filepath.Base(dir)) {
			t.Errorf("%s: a package is named for what it does", dir)
		}
		used[dir] = map[string]bool{}
		for name, file := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			for _, spec := range file.Imports {
				path := strings.Trim(spec.Path.Value, `"`)
				if own, ok := strings.CutPrefix(path, module); ok {
					used[dir][own] = true
					if !slices.Contains(allowed, own) {
						t.Errorf("%s imports %s, which the layer table forbids", name, own)
					}
					continue
				}
				for dep, homes := range onlyIn {
					if (path == dep || strings.HasPrefix(path, dep+"/")) && !slices.Contains(homes, dir) {
						t.Errorf("%s imports %s, which only %v may", name, path, homes)
					}
				}
			}
		}
	}
	for dir, allowed := range mayImport {
		if used[dir] == nil {
			t.Errorf("mayImport names %s, which does not exist", dir)
			continue
		}
		for _, own := range allowed {
			if !used[dir][own] {
				t.Errorf("mayImport allows %s -> %s, which nothing uses: remove the edge", dir, own)
			}
		}
	}
}

// TestPackageComments wants exactly one package comment in each package.
func TestPackageComments(t *testing.T) {
	for dir, files := range packages(t) {
		n, code := 0, false
		for name, file := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			code = true
			if file.Doc.Text() != "" { // a linter directive alone is none
				n++
			}
		}
		if code && n != 1 {
			t.Errorf("%s has %d package comments, want 1", dir, n)
		}
	}
}

// TestLeakChecks wants a goroutine leak check in every package that starts
// goroutines.
func TestLeakChecks(t *testing.T) {
	for dir, files := range packages(t) {
		if !strings.HasPrefix(dir, "internal/") {
			continue
		}
		starts, checked := "", false
		for name, file := range files {
			if strings.HasSuffix(name, "_test.go") {
				for _, spec := range file.Imports {
					checked = checked || strings.Contains(spec.Path.Value, "goleak")
				}
				continue
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					starts = name
				case *ast.CallExpr: // of a sync.WaitGroup or an errgroup.Group
					if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Go" && len(n.Args) == 1 {
						starts = name
					}
				}
				return true
			})
		}
		if starts != "" && !checked {
			t.Errorf("%s starts goroutines, but no test of the package imports goleak", starts)
		}
	}
}

// TestNoSleepInTests forbids time.Sleep in tests: time is virtual
// (testing/synctest) or waited for by polling a condition.
func TestNoSleepInTests(t *testing.T) {
	for _, files := range packages(t) {
		for name, file := range files {
			if !strings.HasSuffix(name, "_test.go") {
				continue
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
					if id, ok := sel.X.(*ast.Ident); ok && id.Name == "time" {
						t.Errorf("%s calls time.Sleep", name)
					}
				}
				return true
			})
		}
	}
}

// TestNoSkips forbids tests that skip themselves: they read as passed. What a
// test needs it makes, in a namespace if it has to.
func TestNoSkips(t *testing.T) {
	for _, files := range packages(t) {
		for name, file := range files {
			if !strings.HasSuffix(name, "_test.go") && !strings.HasPrefix(name, "internal/meshtest/") {
				continue
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok {
					switch sel.Sel.Name {
					case "Skip", "Skipf", "SkipNow":
						if id, ok := sel.X.(*ast.Ident); ok && slices.Contains([]string{"t", "tb", "b", "f"}, id.Name) {
							t.Errorf("%s calls %s.%s", name, id.Name, sel.Sel.Name)
						}
					}
				}
				return true
			})
		}
	}
}

// packages parses every Go file of this module: directory to file name to
// syntax, with comments of the package clause.
func packages(t *testing.T) map[string]map[string]*ast.File {
	t.Helper()
	out := map[string]map[string]*ast.File{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			skip := path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules")
			if _, err := os.Stat(filepath.Join(path, "go.mod")); path != "." && err == nil {
				skip = true
			}
			if skip {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		if out[dir] == nil {
			out[dir] = map[string]*ast.File{}
		}
		out[dir][filepath.ToSlash(path)] = file
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
