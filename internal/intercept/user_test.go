package intercept_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAsOrdinaryUser runs all tests of this package again without root.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		return // this is that run
	}
	const uid = 1001
	binary := ownBinary(t)
	dir := filepath.Join(filepath.Dir(binary), "home")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, uid); err != nil {
		t.Fatal(err)
	}
	for path := filepath.Dir(binary); path != os.TempDir() && path != "/"; path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"-test.v"}
	if end, ok := t.Deadline(); ok { // of this run: that one is to end before, and say where it is
		args = append(args, "-test.timeout="+(time.Until(end)-10*time.Second).String())
	}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + dir, "TMPDIR=" + dir, "GOCOVERDIR=" + os.Getenv("GOCOVERDIR")}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uid, Gid: uid}, Pdeathsig: syscall.SIGKILL, // if the tests are killed
	}
	cmd.WaitDelay = 10 * time.Second // what it left may have its output open
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("as uid %d: %v\n%s", uid, err, out)
	}
	passed, skipped := bytes.Count(out, []byte("--- PASS: ")), bytes.Count(out, []byte("--- SKIP: "))
	if passed < 20 || skipped > 0 {
		t.Errorf("as uid %d: %d tests passed, %d skipped", uid, passed, skipped)
	}
	t.Log(strings.TrimSpace(string(out[bytes.LastIndexByte(bytes.TrimSpace(out), '\n')+1:])), passed, "tests passed as uid", uid)
}
