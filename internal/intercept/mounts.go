package intercept

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// File is a file that exists only inside the case.
type File struct {
	Path string // absolute and clean
	Data []byte
	Mode fs.FileMode // permission bits
	// Mount is the directory that this file is mounted with: what the host has
	// there is hidden, and the directory holds exactly the files that name it
	// (a ConfigMap or Secret volume). If it is empty, the file alone is mounted
	// (Kubernetes' subPath). Path must be below Mount.
	Mount string
}

// Dir is a writable directory; see Config.VolumeDir for how long it lasts.
type Dir struct {
	Path string // absolute and clean
	// Volume names what is mounted: Dirs with the same name are one directory at
	// several paths, and v/sub is the directory sub in v.
	Volume string
}

// mounter changes the mount namespace of the case. Nothing it does is seen
// outside.
//
// All new files live in one tmpfs, the stage. It is mounted out of the way while
// its parts are bound to their places, and then unmounted; the parts stay.
//
// A place that does not exist on the host is made by privatizing its nearest
// existing directory: a directory on the stage takes its place, in which every
// entry of the original is bound. So writes to what exists still reach the host,
// which an overlay would not do; only entries newly made in that one directory
// are lost with the case, and its entries cannot be replaced by rename(2).
type mounter struct {
	stage    string
	stageDev uint64
	volumes  []string // where volumes of the volume directory are mounted
	uid, gid int
	next     int
}

// stages are directories that exist wherever proc is mounted, and that no
// program looks into.
func stages() []string { return []string{"/proc/fs", "/proc/bus", "/proc/irq"} }

// maxEntries bounds the directories that can be privatized: one mount each.
const maxEntries = 4096

// setupMounts gives the case its own /proc, resolv.conf, hosts and files.
func setupMounts(req *setupRequest) (notes []string, err error) {
	// Slave, not private: what the host mounts later (a USB stick) appears in
	// the case too, and what the host unmounts is not kept busy by it.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return nil, fmt.Errorf("take mounts from the host only: %w", err)
	}
	// The host's /proc has no process 1 of ours. Containers that mask parts
	// of /proc forbid a new one.
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		notes = append(notes, "programs see the host's /proc: mounting a new one was refused: "+err.Error())
	}
	defer unix.Umask(unix.Umask(0)) // modes are meant as they are written
	m := &mounter{uid: req.UID, gid: req.GID}
	if err := m.open(); err != nil {
		return notes, err
	}
	n, err := m.mountAll(req)
	notes = append(notes, n...)
	return notes, errors.Join(err, m.close())
}

func (m *mounter) mountAll(req *setupRequest) (notes []string, err error) {
	// These lead to a resolver of the host without a packet.
	for _, dir := range []string{"/run/nscd", "/var/run/nscd", "/var/db/nscd", "/run/systemd/resolve"} {
		if err := m.cover(dir); err != nil {
			notes = append(notes, "a resolver of the host may be asked by socket: "+err.Error())
		}
	}
	if err := m.put("/etc/resolv.conf", req.ResolvConf, 0o644); err != nil {
		return notes, err
	}
	if err := m.put("/etc/hosts", req.Hosts, 0o644); err != nil {
		notes = append(notes, "no entry for the own name: "+err.Error())
	}
	if err := m.mountVolumes(req.Files, req.Dirs, req.VolumeDir); err != nil {
		return notes, volumeError{err}
	}
	return notes, nil
}

// open mounts the stage.
func (m *mounter) open() error {
	var errs []error
	for _, dir := range stages() {
		err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755")
		if err != nil {
			errs = append(errs, fmt.Errorf("mount tmpfs on %s: %w", dir, err))
			continue
		}
		m.stage = dir
		m.stageDev, err = device(dir)
		return err
	}
	return errors.Join(errs...)
}

func (m *mounter) close() error {
	if err := unix.Unmount(m.stage, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the stage: %w", err)
	}
	return nil
}

// cover hides a directory of the host behind an empty one, if it exists.
func (m *mounter) cover(dir string) error {
	place, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil //nolint:nilerr // it does not exist: nothing to hide
	}
	if dev, err := device(place); err == nil && dev == m.stageDev {
		return nil // covered already, by another name
	}
	empty, err := m.newDir(0o755)
	if err != nil {
		return err
	}
	return bind(empty, place)
}

// put makes content appear at path.
func (m *mounter) put(path string, data []byte, mode fs.FileMode) error {
	staged, err := m.newFile(data, mode)
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	place, err := m.ensure(path, false)
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	return bind(staged, place)
}

// ensure makes path exist in the case and returns it without symbolic links.
func (m *mounter) ensure(path string, dir bool) (string, error) {
	place, missing, err := deepest(path)
	if err != nil || len(missing) == 0 {
		return place, err
	}
	dev, err := device(place)
	if err != nil {
		return "", err
	}
	if dev != m.stageDev && !m.ofVolume(place) {
		if err := m.privatize(place); err != nil {
			return "", fmt.Errorf("make a private copy of %s: %w", place, err)
		}
	}
	for i, name := range missing {
		place = filepath.Join(place, name)
		if i == len(missing)-1 && !dir {
			err = m.write(place, nil, 0o644)
		} else {
			err = m.mkdir(place, 0o755)
		}
		if err != nil {
			return "", err
		}
	}
	return place, nil
}

// ofVolume reports whether place is in a volume that is kept on the host, and may
// be changed as the stage may.
func (m *mounter) ofVolume(place string) bool {
	return slices.ContainsFunc(m.volumes, func(v string) bool { return place == v || strings.HasPrefix(place, v+"/") })
}

// deepest finds the deepest existing part of path, without symbolic links, and
// the names below it that are missing. Dangling links are followed.
func deepest(path string) (place string, missing []string, err error) {
	for range 255 { // links that point at links
		place, err = filepath.EvalSymlinks(path)
		if err == nil {
			return place, missing, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", nil, err
		}
		if target, err := os.Readlink(path); err == nil {
			if !filepath.IsAbs(target) {
				target = filepath.Join(filepath.Dir(path), target)
			}
			path = target
			continue
		}
		missing = append([]string{filepath.Base(path)}, missing...)
		path = filepath.Dir(path)
	}
	return "", nil, fmt.Errorf("%s: %w", path, unix.ELOOP)
}

// privatize puts a directory of the stage, filled with binds of every entry, in
// the place of dir.
func (m *mounter) privatize(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > maxEntries {
		return fmt.Errorf("it has %d entries, more than %d: make the directory on the host", len(entries), maxEntries)
	}
	staged, err := m.newDir(info.Mode().Perm() | info.Mode()&fs.ModeSticky)
	if err != nil {
		return err
	}
	if dir == "/" {
		// pivot_root needs a mount point.
		if err := bind(staged, staged); err != nil {
			return err
		}
	}
	for _, e := range entries {
		if err := m.mirror(filepath.Join(dir, e.Name()), filepath.Join(staged, e.Name()), e.Type()); err != nil {
			return err
		}
	}
	if dir == "/" {
		return pivot(staged)
	}
	return bind(staged, dir)
}

// mirror makes the entry from appear at to.
func (m *mounter) mirror(from, to string, typ fs.FileMode) error {
	var err error
	switch {
	case typ&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case typ.IsDir():
		err = os.Mkdir(to, 0o755)
	default:
		err = os.WriteFile(to, nil, 0o600)
	}
	if err != nil {
		return err
	}
	err = bind(from, to)
	if errors.Is(err, fs.ErrNotExist) {
		_ = os.Remove(to) // it vanished meanwhile
		return nil
	}
	return err
}

// pivot makes root the root directory of all processes of the case.
func pivot(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	// The old root is now mounted over the new one.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	return os.Chdir("/")
}

func (m *mounter) newDir(mode fs.FileMode) (string, error) {
	m.next++
	dir := filepath.Join(m.stage, strconv.Itoa(m.next))
	return dir, m.mkdir(dir, mode)
}

func (m *mounter) newFile(data []byte, mode fs.FileMode) (string, error) {
	m.next++
	path := filepath.Join(m.stage, strconv.Itoa(m.next))
	return path, m.write(path, data, mode)
}

func (m *mounter) mkdir(path string, mode fs.FileMode) error {
	if err := os.Mkdir(path, mode.Perm()); err != nil {
		return err
	}
	return os.Chmod(path, mode) // mkdir(2) drops the sticky bit
}

func (m *mounter) write(path string, data []byte, mode fs.FileMode) error {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return err
	}
	if err := os.Chown(path, m.uid, m.gid); err != nil {
		return err
	}
	return os.Chmod(path, mode.Perm())
}

// bind makes what is at from appear at to.
func bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind to %s: %w", to, err)
	}
	return nil
}

func device(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", path, err)
	}
	return st.Dev, nil
}
