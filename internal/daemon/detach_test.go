package daemon

import (
	"os"
	"path/filepath"
	"testing"
)

// The log of a run that died is what one wants to read after the next start.
func TestLogsOfEarlierRunsAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vitrine.log")
	for _, text := range []string{"first", "second", "", "third", "fourth"} {
		f, err := freshLog(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for name, want := range map[string]string{path: "fourth", path + ".1": "third", path + ".2": "second"} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", filepath.Base(name), got, err, want)
		}
	}
	if _, err := os.Stat(path + ".3"); err == nil {
		t.Error("a fourth log is kept")
	}
}
