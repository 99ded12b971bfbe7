package local

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
)

// TestOldestLogsArePruned: what counts is when a pod last said something, not when its
// log was made.
func TestOldestLogsArePruned(t *testing.T) {
	s := &Supervisor{o: Options{DataDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}}
	start := time.Unix(1e9, 0)
	write := func(name string, made, said time.Time) (dir string) {
		dir = filepath.Join(s.o.DataDir, "logs", "default", name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for container, at := range map[string]time.Time{"app": said, pod.ProxyContainer: made} {
			path := pod.LogPath(dir, container)
			if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, at, at)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(dir, made, made); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	longLived := write("long-lived", start, start.Add(time.Hour))
	var short []string
	for i := range keptLogs {
		at := start.Add(time.Duration(i+1) * time.Second)
		short = append(short, write(fmt.Sprintf("short-%03d", i), at, at))
	}
	s.pruneLogs(t.Context())
	for i, dir := range append(short, longLived) {
		_, err := os.Stat(dir)
		if gone := errors.Is(err, fs.ErrNotExist); gone != (i == 0) {
			t.Errorf("%s: %v; want only the oldest one gone", dir, err)
		}
	}
}
