package manifest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzLoad wants that no input panics, that every diagnostic names a line of
// the input, and that objects and errors exclude each other.
func FuzzLoad(f *testing.F) {
	stories, err := filepath.Glob("testdata/stories/*")
	if err != nil || len(stories) == 0 {
		f.Fatalf("no stories to start from: %v", err)
	}
	for _, path := range stories {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for part := range strings.SplitSeq(string(data), "\nload") {
			_, input, _ := strings.Cut(part, "\n")
			input, _, _ = strings.Cut(input, "\n----")
			f.Add([]byte(input))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, diags := Load([]string{"-"}, Options{Stdin: strings.NewReader(string(data))})
		wrong := false
		last := strings.Count(string(data), "\n") + 1
		for _, d := range diags {
			wrong = wrong || !d.Warning
			if d.Line < 1 || d.Line > last || d.File != "-" || d.Problem == "" || d.Remedy == "" {
				t.Errorf("diagnostic %+v of an input of %d lines", d, last)
			}
		}
		if wrong != (objects == nil) {
			t.Errorf("objects %v with diagnostics %v", objects, diags)
		}
	})
}

func FuzzSplitCommand(f *testing.F) {
	for _, s := range []string{`./web -v`, `sh -c "a \"b\" $c" 'd e'`, `["a","b c"]`, `a\ b ""`, `"`, `[`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		words, err := splitCommand(text)
		if err != nil && text == "" {
			t.Errorf("empty text: %v", err)
		}
		if err == nil && !strings.ContainsAny(text, `'"\[`) && !equalWords(words, strings.FieldsFunc(text, isBlank)) {
			t.Errorf("splitCommand(%q) = %q", text, words)
		}
	})
}

func isBlank(r rune) bool { return strings.ContainsRune(" \t\r\n", r) }

func equalWords(a, b []string) bool {
	return strings.Join(a, "\x00") == strings.Join(b, "\x00") && len(a) == len(b)
}
