package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vitrine-mesh/vitrine/internal/manifest"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// leaveOut removes the sets whose interpreter is not installed, says so, and
// returns their names. A program with a path is ours to build: its absence is an
// error.
func (m *Mesh) leaveOut(objs *manifest.Objects) (names []string, err error) {
	var unbuilt []string
	objs.Sets = slices.DeleteFunc(objs.Sets, func(s mesh.WorkloadSet) bool {
		program, missing := missingProgram(&s)
		switch {
		case missing && strings.Contains(program, "/"):
			unbuilt = append(unbuilt, program)
		case missing:
			names = append(names, s.Name)
			fmt.Fprintf(m.io.Progress, "left out: %s, since %s is not installed (apt-get install %s)\n", s.Name, program, packageOf(program))
		}
		return missing
	})
	if len(unbuilt) > 0 {
		return nil, fmt.Errorf("programs of the demo are not built: %s: run `make build`", strings.Join(unbuilt, ", "))
	}
	return names, nil
}

// missingProgram finds the first program of a set that is not on this machine.
func missingProgram(set *mesh.WorkloadSet) (name string, missing bool) {
	for _, c := range append(append([]mesh.Container{}, set.InitContainers...), set.Containers...) {
		path := c.Args[0]
		if strings.Contains(path, "/") {
			if !filepath.IsAbs(path) {
				path = filepath.Join(c.Dir, path)
			}
			if _, err := os.Stat(path); err != nil {
				return c.Args[0], true
			}
			continue
		}
		if _, err := exec.LookPath(path); err != nil {
			return path, true
		}
	}
	return "", false
}

// packageOf is the Debian package that has an interpreter.
func packageOf(program string) string {
	if program == "node" {
		return "nodejs"
	}
	return filepath.Base(program)
}
