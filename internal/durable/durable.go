// Package durable replaces a file in one step, so that whoever reads it, also
// after this process was killed in the middle, finds the old content or the new
// one whole, never a part and never nothing.
//
// It hides the temporary file beside the target, its renaming, and what has to
// be synced for a content to survive the loss of power. Every function may be
// called concurrently; of concurrent replacements of one file the last wins.
package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Replace gives the file at path the content data and mode 0600. When it
// returns nil the content survives the loss of power. If it fails the old
// content stays. It waits for the disk: do not call it with a lock held that
// others need.
func Replace(path string, data []byte) error {
	if err := replace(path, data, true); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}

// ReplaceRuntime is Replace for files that mean nothing after a reboot: it does
// not wait for the disk, and after the loss of power the file may be empty.
func ReplaceRuntime(path string, data []byte) error {
	if err := replace(path, data, false); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}

func replace(path string, data []byte, synced bool) (err error) {
	dir, name := filepath.Split(path)
	tmp, err := os.CreateTemp(dir, name+".tmp-*") // of mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tmp.Close() // it may be closed
			_ = os.Remove(tmp.Name())
		}
	}()
	if _, err = tmp.Write(data); err != nil {
		return err
	}
	if synced {
		if err = tmp.Sync(); err != nil {
			return err
		}
	}
	if err = tmp.Close(); err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), path); err != nil || !synced {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a renaming in dir survive the loss of power.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
