package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long files must be quiet before a change is applied: editors
// write a file in several steps.
const settle = 200 * time.Millisecond

// watchFiles calls changed after the files, or anything below the directories,
// have changed and been quiet for a moment. It returns when ctx ends.
func watchFiles(ctx context.Context, paths []string, log *slog.Logger, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch files: %w (raise fs.inotify.max_user_instances?)", err)
	}
	defer func() { _ = w.Close() }()
	files := map[string]bool{}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("watch %s: %w", path, err)
		}
		if !info.IsDir() {
			// The directory is watched, since editors replace files by renaming.
			files[filepath.Clean(path)] = true
			path = filepath.Dir(path)
		}
		if err := addTree(w, path, info.IsDir()); err != nil {
			return err
		}
	}
	timer := time.NewTimer(settle)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Events:
			if !ok {
				return nil
			}
			if e.Op == fsnotify.Chmod || !relevant(e.Name, files, paths) {
				continue
			}
			if info, err := os.Stat(e.Name); err == nil && info.IsDir() {
				if err := addTree(w, e.Name, true); err != nil {
					log.Warn("new directory is not watched", "path", e.Name, "error", err)
				}
			}
			timer.Reset(settle)
		case err := <-w.Errors:
			log.Warn("watching files", "error", err)
		case <-timer.C:
			changed()
		}
	}
}

func addTree(w *fsnotify.Watcher, root string, deep bool) error {
	if !deep {
		if err := w.Add(root); err != nil {
			return fmt.Errorf("watch %s: %w", root, err)
		}
		return nil
	}
	return filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if err := w.Add(path); err != nil {
			return fmt.Errorf("watch %s: %w", path, err)
		}
		return nil
	})
}

// relevant tells changes of named files, or below named directories, from
// others in the same directory.
func relevant(name string, files map[string]bool, paths []string) bool {
	name = filepath.Clean(name)
	if files[name] {
		return true
	}
	for _, path := range paths {
		path = filepath.Clean(path)
		if files[path] {
			continue
		}
		if rel, err := filepath.Rel(path, name); err == nil && filepath.IsLocal(rel) {
			return true
		}
	}
	return false
}
