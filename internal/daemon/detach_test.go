package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestLastWill: of a mesh that did not start, the cause is told, and nothing of
// what it or an earlier one said before.
func TestLastWill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vitrine.log")
	died := errors.New("exit status 1")
	const before = "ready 3/3\nvitrine: the cause of an earlier end\n"
	for name, tc := range map[string]struct {
		log  string
		from int64
		err  error
		want string
	}{
		"one line": {
			before + "ready 0/2\nvitrine: port 80 is taken: stop what has it\n", int64(len(before)), died,
			"the mesh did not start: port 80 is taken: stop what has it\n(its log is " + path + ")",
		},
		"several reasons and lines": {
			"noise\nvitrine: first\nvitrine: second\nof two lines\n", 0, died,
			"the mesh did not start: first\nsecond\nof two lines\n(its log is " + path + ")",
		},
		"it crashed": {
			before + "panic: oh\n\nmain()\n", int64(len(before)), died,
			"the mesh ended at once: exit status 1; the end of its log, " + path + ":\n  panic: oh\n  \n  main()",
		},
		"the log was renamed": {
			"vitrine: full\n", 10 << 20, died,
			"the mesh did not start: full\n(its log is " + path + ")",
		},
		"without a word": {
			before, int64(len(before)), nil,
			"the mesh ended at once: nobody knows why; the end of its log, " + path + ":\n  ",
		},
	} {
		if err := os.WriteFile(path, []byte(tc.log), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := (lastWill{path, tc.from}).read(tc.err).Error(); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}
