package pod

import (
	"os"
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
	if opened != 5 || l.Dropped() != 0 {
		t.Errorf("opened %d files, dropped %d bytes", opened, l.Dropped())
	}
}
