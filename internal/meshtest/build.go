package meshtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// Binaries are the programs of one test process, built from the sources as
// they are now. Everybody may read and execute them, so that tests can run them
// as another user.
type Binaries struct {
	// Root is the directory of all that a test process makes: Root/bin has
	// vitrine and vitrine-proxy.
	Root string
	// Module is the root of the source tree.
	Module string

	ports atomic.Uint64 // how many Port has given out
}

// Main builds vitrine, vitrine-proxy and the given packages (paths below the
// module's root, as "./test/truth/load") and runs the tests. However they end,
// what they made below Root is removed then, and what they started from there is
// ended. Main returns the exit code of TestMain, which must not do anything else:
// the same binary is started once more as the one that cleans up.
func Main(m *testing.M, b *Binaries, packages ...string) int {
	if len(os.Args) == 3 && os.Args[1] == undertakerArg {
		return buried(os.Args[2])
	}
	code, err := b.run(m, packages)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// buried is the exit code of an undertaker.
func buried(root string) int {
	if err := undertake(root); err != nil {
		return 1
	}
	return 0
}

func (b *Binaries) run(m *testing.M, packages []string) (code int, err error) {
	ordinaryStart()
	// Short, since the paths of Unix sockets below are bounded.
	if b.Root, err = os.MkdirTemp("/tmp", "vt-"); err != nil {
		return 0, err
	}
	u, err := startUndertaker(b.Root)
	if err != nil {
		return 0, errors.Join(err, os.RemoveAll(b.Root))
	}
	defer func() { err = errors.Join(err, u.finish()) }()
	if err := b.build(packages); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// Dir makes a directory below Root for one test, which removes it.
func (b *Binaries) Dir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp(b.Root, "m") //nolint:usetesting // short: the paths of Unix sockets are bounded
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Port finds a port of 127.0.0.1 that nobody uses. It gives out none twice, and
// none that the system gives to clients, which would be in the way later.
func (b *Binaries) Port() (string, error) {
	const first, count = 20_000, 10_000
	var err error
	for range 100 {
		port := strconv.FormatUint(first+(uint64(os.Getpid())*37+b.ports.Add(1))%count, 10)
		var ln net.Listener
		if ln, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", port)); err == nil {
			return port, ln.Close()
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
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
