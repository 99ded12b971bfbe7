package metricstore

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckRules(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"good.yaml":   "groups: [{name: g, rules: [{record: a:b, expr: sum(up)}]}]",
		"bad.yaml":    "groups: [{name: g, rules: [{record: a:b, expr: 'sum('}]}]",
		"nofield.yml": "groups: [{name: g, rulez: []}]",
		"broken.yaml": "groups: [{",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for pattern, want := range map[string]string{
		"good.yaml":  "",
		"g*.yaml":    "",
		"none.yaml":  "no such file",
		"bad.yaml":   "parse error",
		"broken.*":   "broken.yaml: yaml: line",
		"*.yaml":     "bad.yaml",
		"nofield.*":  "rulez",
		"[.yaml":     "pattern",
		"none*.yaml": "no such file",
	} {
		err := CheckRules(filepath.Join(dir, pattern))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", pattern, err, want)
		}
		if err != nil && strings.Count(err.Error(), "yaml: line") > 1 {
			t.Errorf("%s: told twice: %v", pattern, err)
		}
	}
}
