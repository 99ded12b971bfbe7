package xds

import (
	"os"
	"testing"
)

// committedAfter is committed as it will be after a commit.
func (s *store) committedAfter(k Kind, name string) string { return s.entries[k][name].version }

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
