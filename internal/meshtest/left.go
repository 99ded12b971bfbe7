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

func (m *Mesh) processesLeft() error {
	all, err := m.Processes()
	var left []error
	for _, p := range all {
		left = append(left, fmt.Errorf("process %d (%s) is left", p.PID, p.Args))
	}
	return errors.Join(append(left, err)...)
}

// Process is a process of a mesh.
type Process struct {
	PID  int
	Args string // separated by spaces
}

// mark is a variable in the environment of all that a mesh starts.
func (m *Mesh) mark() string { return "VITRINE_TEST_MESH=" + m.Dir + "/" }

// Processes finds those of a mesh, but for its control plane: what has the
// mesh's mark in its environment, what runs a program below Root with the mesh's
// directory in its arguments, and what is in a network namespace of a program
// that Pods or ListPods ever listed.
func (m *Mesh) Processes() ([]Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || m.up != nil && pid == m.up.Process.Pid {
			continue
		}
		dir := filepath.Join("/proc", e.Name())
		args, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
		exe, _ := os.Readlink(filepath.Join(dir, "exe"))
		ns, _ := os.Readlink(filepath.Join(dir, "ns/net")) // nothing of these if it ended meanwhile
		if m.namespaces[ns] != nil || bytes.Contains(environ, []byte(m.mark())) ||
			strings.HasPrefix(exe, m.bin.Root+"/") && bytes.Contains(args, []byte(m.Dir+"/")) {
			found = append(found, Process{pid, strings.TrimSpace(string(bytes.ReplaceAll(args, []byte{0}, []byte{' '})))})
		}
	}
	return found, nil
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
		if strings.Contains(line, m.RunDir+"/") {
			return fmt.Errorf("a socket is left: %s", strings.TrimSpace(line))
		}
	}
	return filepath.WalkDir(m.RunDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && d.Type()&fs.ModeSocket != 0 {
			return fmt.Errorf("the file of a socket is left: %s", path)
		}
		return nil
	})
}
