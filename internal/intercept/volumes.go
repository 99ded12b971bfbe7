package intercept

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// volumeError is a failure to mount Files or Dirs, not what every case has.
type volumeError struct{ error }

func (e volumeError) Unwrap() error { return e.error }

// volumeMount is one mount of Files or Dirs.
type volumeMount struct {
	path     string // as it was asked for
	staged   string // what is to appear there
	dir      bool
	readOnly bool
	kept     bool // on the host, from one case to the next
	depth    int  // of where path leads without symbolic links
}

// mountVolumes mounts files and directories. One can be mounted in another, so
// outer ones come first. A mount point that an outer volume lacks is made in it,
// which is why volumes become read-only when everything has its place.
func (m *mounter) mountVolumes(files []File, dirs []Dir, volumeDir string) error {
	mounts, err := m.stageFiles(files)
	if err != nil {
		return err
	}
	more, err := m.stageDirs(dirs, volumeDir)
	if err != nil {
		return err
	}
	mounts = append(mounts, more...)
	for i := range mounts {
		place, missing, err := deepest(mounts[i].path)
		if err != nil {
			return fmt.Errorf("look for %s: %w", mounts[i].path, err)
		}
		mounts[i].depth = strings.Count(filepath.Join(append([]string{place}, missing...)...), "/")
	}
	slices.SortStableFunc(mounts, func(a, b volumeMount) int { return cmp.Compare(a.depth, b.depth) })
	var readOnly []string
	for i := range mounts {
		v := &mounts[i]
		place, err := m.ensure(v.path, v.dir)
		if err != nil {
			return fmt.Errorf("make %s: %w", v.path, err)
		}
		if err := bind(v.staged, place); err != nil {
			return err
		}
		if v.readOnly {
			readOnly = append(readOnly, place)
		}
		if v.kept {
			m.volumes = append(m.volumes, place)
		}
	}
	for _, place := range readOnly {
		if err := protect(place); err != nil {
			return err
		}
	}
	return nil
}

// stageDirs makes the directories, or finds those that were made before.
func (m *mounter) stageDirs(dirs []Dir, volumeDir string) ([]volumeMount, error) {
	var mounts []volumeMount
	volumes := map[string]string{}
	for _, d := range dirs {
		volume, sub, _ := strings.Cut(d.Volume, "/")
		staged, ok := volumes[volume]
		if !ok {
			var err error
			if staged, err = m.volume(volumeDir, volume); err != nil {
				return nil, err
			}
			volumes[volume] = staged
		}
		staged = filepath.Join(staged, sub) // validated by P0
		if err := os.MkdirAll(staged, 0o777); err != nil {
			return nil, fmt.Errorf("make %s of volume %s: %w", sub, volume, err)
		}
		mounts = append(mounts, volumeMount{path: d.Path, staged: staged, dir: true, kept: volumeDir != ""})
	}
	return mounts, nil
}

// volume makes the directory of a volume in volumeDir, if it is not there, or an empty
// one on the stage if volumeDir is "".
func (m *mounter) volume(volumeDir, name string) (string, error) {
	if volumeDir == "" {
		return m.newDir(0o777)
	}
	dir := filepath.Join(volumeDir, name)
	if err := m.mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make volume %s: %w", name, err)
	}
	return dir, nil
}

// stageFiles writes the files, those of one Mount into one directory.
func (m *mounter) stageFiles(files []File) ([]volumeMount, error) {
	var mounts []volumeMount
	dirs := map[string]string{} // mount point to directory on the stage
	for i := range files {
		f := &files[i]
		if f.Mount == "" {
			staged, err := m.newFile(f.Data, f.Mode)
			if err != nil {
				return nil, fmt.Errorf("write %s: %w", f.Path, err)
			}
			mounts = append(mounts, volumeMount{path: f.Path, staged: staged})
			continue
		}
		staged, ok := dirs[f.Mount]
		if !ok {
			var err error
			if staged, err = m.newDir(0o755); err != nil {
				return nil, err
			}
			dirs[f.Mount] = staged
			mounts = append(mounts, volumeMount{path: f.Mount, staged: staged, dir: true, readOnly: true})
		}
		at := staged + strings.TrimPrefix(f.Path, f.Mount) // validated by P0
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return nil, err
		}
		if err := m.write(at, f.Data, f.Mode); err != nil {
			return nil, err
		}
	}
	return mounts, nil
}

// protect makes what is mounted at place read-only.
func protect(place string) error {
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV)
	if err := unix.Mount("", place, "", flags, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", place, err)
	}
	return nil
}
