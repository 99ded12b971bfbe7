package durable_test

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/durable"
)

func TestReplace(t *testing.T) {
	for name, replace := range map[string]func(string, []byte) error{"durable": durable.Replace, "runtime": durable.ReplaceRuntime} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "state.json")
			for _, content := range []string{"first", "the second, longer", ""} {
				if err := replace(path, []byte(content)); err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(path); err != nil || string(got) != content {
					t.Errorf("content %q, %v; want %q", got, err, content)
				}
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			alone(t, dir, "state.json")
			if err := replace(filepath.Join(dir, "none", "file"), nil); err == nil {
				t.Error("a directory that does not exist is no error")
			}
		})
	}
}

// What cannot be replaced stays, and nothing is left beside it.
func TestFailureLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(path, "inside"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.Replace(path, []byte("x")); err == nil {
		t.Error("a directory was replaced")
	}
	alone(t, dir, "taken")
}

// A reader never sees a part, however many replace the file.
func TestReadersSeeWholeContents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	content := func(c byte) []byte { return bytes.Repeat([]byte{c}, 64<<10) }
	if err := durable.ReplaceRuntime(path, content('0')); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for _, c := range []byte("12") {
		writers.Go(func() {
			for range 50 {
				if err := durable.ReplaceRuntime(path, content(c)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 200 {
		got, err := os.ReadFile(path)
		if err != nil || len(got) != 64<<10 || !bytes.Equal(got, content(got[0])) {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
	}
	writers.Wait()
}

func alone(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("in the directory: %v, %v; want %s alone", entries, err, name)
	}
}
