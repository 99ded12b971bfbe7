package pod

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestLogRotates(t *testing.T) {
	dir := t.TempDir()
	opened := 0
	l, err := openLog(dir, "app", 10, func(*os.File) { opened++ })
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"one\n", "two\n", "three\n", "four\n", "a long line of its own\n", "six\n", "seven\n"} {
		if n, err := l.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatalf("write %q: %d, %v", line, n, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"":   "six\nseven\n",
		".1": "a long line of its own\n",
		".2": "four\n",
	} {
		got, err := os.ReadFile(LogPath(dir, "app") + path)
		if err != nil || string(got) != want {
			t.Errorf("file %q holds %q, %v; want %q", path, got, err, want)
		}
	}
	if _, err := os.Stat(LogPath(dir, "app") + ".3"); err == nil {
		t.Error("more files than LogFiles are kept")
	}
	if opened != 5 {
		t.Errorf("opened %d files, want 5", opened)
	}
}

// TestLostOutputIsTold: a disk that was full leaves a gap that says so.
func TestLostOutputIsTold(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/dev/full", LogPath(dir, "app")); err != nil {
		t.Fatal(err)
	}
	l, err := OpenLog(dir, "app", nil)
	if err != nil {
		t.Fatal(err)
	}
	write := func(line string) {
		t.Helper()
		if n, err := l.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatalf("write %q: %d, %v", line, n, err)
		}
	}
	write("one\n")
	write("two\n")
	if err := errors.Join(l.Close(), os.Remove(LogPath(dir, "app"))); err != nil {
		t.Fatal(err)
	}
	write("three\n")
	write("four\n")
	const want = "vitrine: 8 bytes of output were lost here: write LOG: no space left on device\nthree\nfour\n"
	got, err := os.ReadFile(LogPath(dir, "app"))
	if text := strings.ReplaceAll(string(got), LogPath(dir, "app"), "LOG"); text != want || err != nil {
		t.Errorf("the log holds %q, %v; want %q", text, err, want)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
