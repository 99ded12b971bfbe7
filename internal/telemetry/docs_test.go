package telemetry

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDocumented holds the tables of docs/metrics.md on the proxy against the
// families that are written, in both directions: name, type and the labels
// that are not Istio's.
func TestDocumented(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(doc), "\n## Metrics of a proxy\n")
	if !ok {
		t.Fatal("docs/metrics.md has no section on the proxy")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	row := regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| (counter|gauge|histogram) \\|[^|]*\\|([^|]*)\\|")
	documented := map[string]string{}
	for _, m := range row.FindAllStringSubmatch(section, -1) {
		labels := strings.TrimSpace(strings.ReplaceAll(m[3], "`", ""))
		if strings.HasPrefix(labels, "A") {
			labels = "A" // TestLabelOrder knows them
		}
		documented[m[1]] = m[2] + " " + labels
	}

	text := expose(t, everything(t), FormatText)
	exposed := map[string]string{}
	label := regexp.MustCompile(`[{,]([a-z_]+)="`)
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(strings.TrimSpace(rest), " ")
			exposed[name] = kind + " "
			continue
		}
		name := line[:max(0, strings.IndexAny(line, "{ "))]
		for _, suffix := range []string{"", "_count"} {
			family := strings.TrimSuffix(name, suffix)
			kind, ok := exposed[family]
			if !ok || !strings.HasSuffix(kind, " ") || strings.HasPrefix(line, "#") {
				continue
			}
			var labels []string
			for _, m := range label.FindAllStringSubmatch(line, -1) {
				labels = append(labels, m[1])
			}
			list := strings.Join(labels, ", ")
			if slices.Contains(labels, "reporter") {
				list = "A"
			}
			exposed[family] = kind + list
		}
	}
	if diff := cmp.Diff(documented, exposed); diff != "" {
		t.Errorf("docs/metrics.md differs from what is exposed (-documented +exposed):\n%s", diff)
	}
}
