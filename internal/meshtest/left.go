package meshtest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// wantNothingLeft fails the test if anything of the mesh outlived it. The
// kernel ends processes and namespaces a moment after their parent, so it looks
// for a while.
func (m *Mesh) wantNothingLeft() {
	m.t.Helper()
	Eventually(m.t, func() error {
		return errors.Join(m.processesLeft(), m.mountsLeft(), m.socketsLeft())
	})
}

// processesLeft looks for processes that run a program below Root with this
// mesh's directory in its arguments or environment, or that are in a network
// namespace of one of its programs.
func (m *Mesh) processesLeft() error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	var left []error
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		dir := filepath.Join("/proc", e.Name())
		args, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		text := strings.TrimSpace(string(bytes.ReplaceAll(args, []byte{0}, []byte{' '})))
		if ns, err := os.Readlink(filepath.Join(dir, "ns/net")); err == nil && m.namespaces[ns] != nil {
			left = append(left, fmt.Errorf("process %d (%s) is still in a network namespace of the mesh", pid, text))
			continue
		}
		environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
		exe, _ := os.Readlink(filepath.Join(dir, "exe"))
		ours := strings.HasPrefix(exe, m.bin.Root+"/") && bytes.Contains(append(args, environ...), []byte(m.Dir+"/"))
		if ours {
			left = append(left, fmt.Errorf("process %d (%s) is left", pid, text))
		}
	}
	return errors.Join(left...)
}

func (m *Mesh) mountsLeft() error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, m.Dir+"/") {
			return fmt.Errorf("a mount is left: %s", strings.TrimSpace(line))
		}
	}
	return nil
}

func (m *Mesh) socketsLeft() error {
	data, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, m.runDir()+"/") {
			return fmt.Errorf("a socket is left: %s", strings.TrimSpace(line))
		}
	}
	return filepath.WalkDir(m.runDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && d.Type()&fs.ModeSocket != 0 {
			return fmt.Errorf("the file of a socket is left: %s", path)
		}
		return nil
	})
}
