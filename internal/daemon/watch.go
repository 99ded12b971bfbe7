package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/vitrine-mesh/vitrine/internal/manifest"
)

const (
	// quiet is how long files must stay as they are before a change is applied:
	// editors write a file in several steps.
	quiet = 200 * time.Millisecond
	// restless is when files that do not stay so are read all the same.
	restless = 2 * time.Second
)

// filesVersion is another one whenever what is read of paths is, or may be: names,
// sizes, times of change, and which files they are. Other files in the same
// directories do not matter.
func filesVersion(paths []string) string {
	files, _ := manifest.Find(paths)
	var b strings.Builder
	for _, path := range files {
		b.WriteString(path)
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintf(&b, " %s %d %d %v", identity(info), info.Size(), info.ModTime().UnixNano(), info.Mode())
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// identity tells a file from any other that exists now.
func identity(info fs.FileInfo) string {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	}
	return ""
}

// watchFiles calls changed when what is read of paths has got another version than
// the one given, and after every change from then on. It returns when ctx ends.
func watchFiles(ctx context.Context, paths []string, version string, log *slog.Logger, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch files: %w (raise fs.inotify.max_user_instances?)", err)
	}
	defer func() { _ = w.Close() }()
	f := &follower{paths: paths, add: w.Add, watched: map[string]string{}, applied: version}
	if err := f.watch(); err != nil {
		return err
	}
	return f.run(ctx, w.Events, w.Errors, log, changed)
}

// follower compares what files are with what was applied of them. Events of the
// kernel only say when: they are of all files in a directory, some may be lost, and
// none tells of the end of a symbolic link. It belongs to one goroutine.
type follower struct {
	paths   []string
	add     func(dir string) error // to what events are about
	watched map[string]string      // identities of directories that were added, by path

	applied string    // version
	seen    string    // version at the last look
	since   time.Time // when it was first another one than applied; zero if it is not
}

// run looks at every event, but not more often than after each quiet time.
func (f *follower) run(ctx context.Context, events <-chan fsnotify.Event, failures <-chan error, log *slog.Logger, changed func()) error {
	timer := time.NewTimer(0) // for what has changed before
	defer timer.Stop()
	for resting := false; ; {
		due := false
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			due = true
		case _, ok := <-events:
			if !ok {
				return nil
			}
		case err := <-failures:
			log.Warn("changes of files may be seen late", "error", err)
		}
		if !due && !resting {
			continue // the timer is running
		}
		if err := f.watch(); err != nil {
			log.Warn("changes of files may not be seen", "error", err)
		}
		apply, again := f.look(filesVersion(f.paths), time.Now())
		if apply {
			changed()
		}
		if resting = due && !again; !resting {
			timer.Reset(quiet)
		}
	}
}

// look takes in the version of now, and reports whether it is to be applied, and
// whether to look again after the quiet time. It is called that often at most, but
// for the first time after a rest.
func (f *follower) look(version string, now time.Time) (apply, again bool) {
	before := f.seen
	f.seen = version
	switch {
	case version == f.applied:
		f.since = time.Time{}
		return false, false
	case version == before:
		f.applied, f.since = version, time.Time{}
		return true, false
	case f.since.IsZero():
		f.since = now
	case now.Sub(f.since) >= restless:
		f.applied, f.since = "", now // perhaps half of something
		return true, true
	}
	return false, true
}

// watch adds the directories of everything that is read now. Those that cannot be
// added are told once.
func (f *follower) watch() error {
	var errs []error
	for more := true; more; { // what came into a directory before it was added
		more = false
		files, dirs := manifest.Find(f.paths)
		var ends []string
		for _, path := range files {
			dirs = append(dirs, filepath.Dir(path)) // since editors replace files by renaming
			if end, err := filepath.EvalSymlinks(path); err == nil {
				ends = append(ends, filepath.Dir(end)) // may be anywhere, and nobody named it
			}
		}
		for i, dir := range slices.Concat(dirs, ends) {
			info, err := os.Stat(dir)
			if err != nil {
				continue // it has gone
			}
			id := identity(info)
			added := f.watched[dir] != id
			f.watched[dir] = id
			more = more || added
			if err := f.add(dir); err != nil && added && i < len(dirs) && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("watch %s: %w", dir, err))
			}
		}
	}
	return errors.Join(errs...)
}
