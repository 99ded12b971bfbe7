package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// TestRunDirOwned: only the lock tells who owns a run directory, and to ask for it does
// not take it.
func TestRunDirOwned(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if runDirOwned(dir) {
		t.Error("a directory that does not exist is owned")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	// What a killed control plane leaves, if its number is a living process's.
	if err := os.WriteFile(filepath.Join(dir, lockFile), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		t.Fatal(err)
	}
	if runDirOwned(dir) {
		t.Error("a process number without a lock is an owner")
	}
	lock, err := lockRunDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if !runDirOwned(dir) {
			t.Error("the lock is not seen")
		}
	}
	if _, err := lockRunDir(dir); !errors.Is(err, ErrRunning) {
		t.Errorf("a second lock: %v", err)
	}
	lock.release()
	if runDirOwned(dir) {
		t.Error("the lock is seen after its release")
	}
}
