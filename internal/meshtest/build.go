package meshtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Binaries are the programs of one test process, built from the sources as
// they are now. Everybody may read and execute them, so that tests can run them
// as another user.
type Binaries struct {
	// Root is the directory of all: Root/bin has vitrine and vitrine-proxy.
	Root string
	// Module is the root of the source tree.
	Module string
}

// Main builds vitrine, vitrine-proxy and the given packages (paths below the
// module's root, as "./test/truth/load"), runs the tests and removes what was
// built. It returns the exit code of TestMain.
func Main(m *testing.M, b *Binaries, packages ...string) int {
	var err error
	if b.Root, err = os.MkdirTemp("/tmp", "vt-bin-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(b.Root)
	if err := b.build(packages); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func (b *Binaries) build(packages []string) error {
	if err := os.Chmod(b.Root, 0o755); err != nil {
		return err
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the module: %w", err)
	}
	b.Module = strings.TrimSpace(string(out))
	return b.Build("bin", append([]string{"./cmd/vitrine", "./cmd/vitrine-proxy"}, packages...)...)
}

// Build builds main packages into the directory dir below Root.
func (b *Binaries) Build(dir string, packages ...string) error {
	dir = filepath.Join(b.Root, dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	cmd := exec.Command("go", append([]string{"build", "-o", dir + "/"}, packages...)...)
	cmd.Dir = b.Module
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// Path is where a program is that Main built.
func (b *Binaries) Path(name string) string { return filepath.Join(b.Root, "bin", name) }
