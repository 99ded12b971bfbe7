// Command shake writes a build overlay under which programs lose their luck: now
// and then a system call returns late, and the scheduler runs goroutines in random
// order, as both happen on a busy machine. A test that passes only because nobody
// was interrupted between two steps fails under it, and so does a program that
// tells of a state before it has it. `make shake` runs the tests so.
//
//	go test -overlay "$(go run ./test/shake -dir DIR)" ./...
//
// It prints the path of the overlay. Programs that the tests build are shaken too
// if the flag is in GOFLAGS.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	dir := flag.String("dir", "", "directory for the files of the overlay")
	oneIn := flag.Int("one-in", 200, "one of so many system calls returns late")
	longest := flag.Duration("longest", 60*time.Millisecond, "by at most so much")
	flag.Parse()
	path, err := write(*dir, *oneIn, *longest)
	if err != nil {
		fmt.Fprintln(os.Stderr, "shake:", err)
		os.Exit(1)
	}
	fmt.Println(path) //nolint:forbidigo // its output
}

// write writes the overlay into dir and returns its path.
func write(dir string, oneIn int, longest time.Duration) (string, error) {
	if dir == "" || oneIn < 1 || longest < time.Microsecond || longest >= time.Second {
		return "", errors.New("give -dir, and -one-in above 0 and -longest between 1us and 1s")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	root, err := goCommand("env", "GOROOT")
	if err != nil {
		return "", err
	}
	module, err := goCommand("list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return "", err
	}
	std := filepath.Join(root, "src")
	pause := fmt.Sprintf(pauseSource, oneIn, longest.Microseconds())
	o := overlay{dir: dir, Replace: map[string]string{}}
	err = errors.Join(
		os.MkdirAll(dir, 0o755),
		o.put(filepath.Join(std, "syscall", "shake.go"), pause),
		o.change(filepath.Join(std, "syscall", "syscall_linux.go"), pauseInCalls),
		o.change(filepath.Join(std, "runtime", "proc.go"), shuffle),
		// The sockets of the data plane have calls of their own.
		o.change(filepath.Join(module, "internal", "upstream", "socket.go"), pauseAfterTransfer),
	)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(o)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, text, 0o644)
}

// overlay is the file that -overlay takes: paths of sources and of what the
// compiler reads in their place.
type overlay struct {
	dir     string
	Replace map[string]string
}

// put has the compiler read text as the source.
func (o *overlay) put(source, text string) error {
	replacement := filepath.Join(o.dir, fmt.Sprintf("%d_%s", len(o.Replace), filepath.Base(source)))
	o.Replace[source] = replacement
	return os.WriteFile(replacement, []byte(text), 0o644)
}

// change has the compiler read the source as edit returns it.
func (o *overlay) change(source string, edit func(string) string) error {
	text, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	changed := edit(string(text))
	if changed == string(text) {
		return fmt.Errorf("%s: what is to be changed is not there (is this another version of Go?)", source)
	}
	return o.put(source, changed)
}

// pauseSource is added to package syscall. It pauses in the kernel, since time.Sleep
// would move the clock of a synctest bubble, and as part of a system call, without a
// processor of the scheduler. The state is updated without synchronization: what a
// race makes of it is as random.
const pauseSource = `package syscall

import "unsafe"

var shakeState uint64

// ShakePause now and then takes its time.
//
//go:nosplit
//go:norace
func ShakePause() {
	if shakeState == 0 {
		pid, _, _ := RawSyscall6(SYS_GETPID, 0, 0, 0, 0, 0, 0)
		shakeState = uint64(pid) * 2654435761
	}
	s := shakeState*6364136223846793005 + 1442695040888963407
	shakeState = s
	if s>>33%%%d == 0 {
		pause := Timespec{Nsec: int64(s>>20%%%d+50) * 1000}
		RawSyscall6(SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0, 0, 0, 0)
	}
}
`

// pauseInCalls changes Syscall and Syscall6, by which packages syscall, os, net and
// golang.org/x/sys/unix call the kernel. RawSyscall is left alone: it is called where
// nothing may wait.
func pauseInCalls(source string) string {
	const end = "\truntime_exitsyscall()\n"
	return strings.ReplaceAll(source, end, "\tShakePause()\n"+end)
}

func pauseAfterTransfer(source string) string {
	const last = "\treturn int(n), errno\n"
	return strings.Replace(source, last, "\tsyscall.ShakePause()\n"+last, 1)
}

func shuffle(source string) string {
	return strings.Replace(source, "const randomizeScheduler = raceenabled", "const randomizeScheduler = true", 1)
}

func goCommand(args ...string) (string, error) {
	out, err := exec.Command("go", args...).Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
