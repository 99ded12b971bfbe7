package metricstore

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// writerEnv makes the test binary write to the store in that directory until
// it is killed, and print each number after it was committed.
const writerEnv = "VITRINE_TEST_WRITER_DIR"

func writeUntilKilled(out io.Writer, dir string) {
	s, err := Open(Options{Dir: dir})
	if err != nil {
		fmt.Fprintln(out, "error:", err)
		return
	}
	at := time.Now().UnixMilli()
	for i := 1; ; i++ {
		if err := write(s, at+int64(i), 50, float64(i)); err != nil {
			fmt.Fprintln(out, "error:", err)
			return
		}
		fmt.Fprintln(out, i)
	}
}

// write commits one sample for each of n series, as a scrape does.
func write(s *Store, at int64, n int, v float64) error {
	app := s.writable.AppenderV2(context.Background())
	for i := range n {
		if _, err := app.Append(0, labels.FromStrings("__name__", "written", "i", strconv.Itoa(i)), 0, at, v, nil, nil, storage.AppendV2Options{}); err != nil {
			return err
		}
	}
	return app.Commit()
}

// A store whose process was killed opens again, at most without the end of what
// was being written, and has everything that was committed.
func TestKill(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	dir := t.TempDir()
	for round := range rounds {
		last := killWriter(t, dir, 20+rand.IntN(400))
		s, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if d := s.Damage(); len(d) > 0 {
			t.Logf("round %d: %v", round, d)
		}
		// The writer is ahead of the clock: a millisecond for each sample.
		got, err := vectorIn(t.Context(), s, "min(max_over_time(written[2m]))", time.Now().Add(time.Minute))
		if err != nil || len(got) != 1 || got[0].Value < float64(last) {
			t.Errorf("round %d: have %v (%v), and %d was committed", round, got, err, last)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		dir = t.TempDir()
	}
}

// killWriter kills a writer after it has committed at least n times, and
// returns the last number that it has printed.
func killWriter(t *testing.T, dir string, n int) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), writerEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // if the tests are killed
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	last := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if last, err = strconv.Atoi(lines.Text()); err != nil {
			t.Fatal(lines.Text())
		}
		if last == n {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait() // killed
	if !stuck.Stop() {
		t.Fatalf("the writer committed %d times within %s, want %d", last, patience, n)
	}
	return last
}

// filled is a closed store with n samples in each of 50 series.
func filled(t *testing.T, n int) (dir string, at int64) {
	t.Helper()
	dir = t.TempDir()
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	at = time.Now().UnixMilli() - int64(n)
	for i := range n {
		if err := write(s, at+int64(i), 50, float64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, at
}

// A write-ahead log that is cut short or garbled anywhere costs what is behind
// the damage, and never the store. What is read back is what was written.
func TestDamagedWAL(t *testing.T) {
	const n = 300
	original, at := filled(t, n)
	rounds := 25
	if testing.Short() {
		rounds = 10
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	repaired := 0
	for round := range rounds {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(original)); err != nil {
			t.Fatal(err)
		}
		damageLargest(t, filepath.Join(dir, "wal"), rnd)
		s, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if len(s.Damage()) > 0 {
			repaired++
		}
		for _, p := range pointsIn(t, s, "written[1h]", time.UnixMilli(at+n)) {
			if want := float64(p.Time.UnixMilli() - at); p.Value != want {
				t.Fatalf("round %d: read %v, written %v", round, p.Value, want)
			}
		}
		// It takes new samples.
		if err := write(s, at+n+1000, 50, 1); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
	}
	t.Logf("%d of %d damaged logs needed repair", repaired, rounds)
	if repaired == 0 {
		t.Error("no damage was noticed: the test damages nothing")
	}
}

// damageLargest cuts the largest file of a directory or flips bytes in it.
func damageLargest(t *testing.T, dir string, rnd *rand.Rand) {
	t.Helper()
	var path string
	var content []byte
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if b, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil && len(b) > len(content) {
			path, content = filepath.Join(dir, e.Name()), b
		}
	}
	used := len(strings.TrimRight(string(content), "\x00")) // the last page is padded
	switch rnd.IntN(3) {
	case 0:
		content = content[:rnd.IntN(used)]
	case 1:
		for range 1 + rnd.IntN(20) {
			content[rnd.IntN(used)] ^= byte(1 + rnd.IntN(255))
		}
	case 2:
		from := rnd.IntN(used)
		for i := range content[from:min(used, from+rnd.IntN(5000))] {
			content[from+i] = byte(rnd.Uint32())
		}
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A block that cannot be read is put aside; the others and the write-ahead log
// are not affected.
func TestDamagedBlock(t *testing.T) {
	dir, at := filled(t, 100)
	old := at - 100*time.Hour.Milliseconds()
	damaged := block(t, dir, old)
	whole := block(t, dir, old+10*time.Hour.Milliseconds())
	if err := os.WriteFile(filepath.Join(damaged, "index"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, Options{Dir: dir, RetentionTime: 1000 * time.Hour})
	d := r.Damage()
	if len(d) != 1 || !strings.Contains(d[0], filepath.Base(damaged)) || !strings.Contains(d[0], damagedDir) {
		t.Errorf("reported: %q", d)
	}
	if _, err := os.Stat(whole); err != nil {
		t.Error(err)
	}
	moved, err := filepath.Glob(filepath.Join(dir, damagedDir, "*", filepath.Base(damaged), "index"))
	if err != nil || len(moved) != 1 {
		t.Errorf("put aside: %v, %v", moved, err)
	}
	for _, c := range []struct {
		at   int64
		want int
	}{{old + 1000, 0}, {old + 10*time.Hour.Milliseconds() + 1000, 1}, {at + 99, 50}} {
		got, err := vectorIn(t.Context(), r.Store, `{__name__=~"written|blocked"}`, time.UnixMilli(c.at))
		if err != nil || len(got) != c.want {
			t.Errorf("at %d: %d series, want %d (%v)", c.at, len(got), c.want, err)
		}
	}
}

// block adds a block with one series at time at and returns its directory.
func block(t *testing.T, dir string, at int64) string {
	t.Helper()
	var samples []chunkSample
	for i := range int64(10) {
		samples = append(samples, chunkSample{at + i*100, float64(i)})
	}
	path, err := tsdb.CreateBlock([]storage.Series{seriesOf(samples)}, dir, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

type chunkSample struct {
	t int64
	v float64
}

func seriesOf(samples []chunkSample) storage.Series {
	return &storage.SeriesEntry{
		Lset: labels.FromStrings("__name__", "blocked"),
		SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator {
			ts, vs := make([]int64, 0, len(samples)), make([]float64, 0, len(samples))
			for _, s := range samples {
				ts, vs = append(ts, s.t), append(vs, s.v)
			}
			return chunkenc.MockSeriesIterator(nil, ts, vs)
		},
	}
}

// Whatever is in place of the newest samples, the store opens.
func TestDamagedHead(t *testing.T) {
	for name, break_ := range map[string]func(dir string) error{
		"head chunks garbled": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "chunks_head", "000001"), []byte("garbage that is long enough to be read"), 0o600)
		},
		"segment is a directory": func(dir string) error {
			segments, err := filepath.Glob(filepath.Join(dir, "wal", "0*"))
			if err != nil {
				return err
			}
			slices.Sort(segments)
			last := segments[len(segments)-1]
			if err := os.Remove(last); err != nil {
				return err
			}
			return os.Mkdir(last, 0o700)
		},
		"segments missing in between": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "wal", "00000009"), nil, 0o600)
		},
		"wal is a file": func(dir string) error {
			if err := os.RemoveAll(filepath.Join(dir, "wal")); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "wal"), nil, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, at := filled(t, 100)
			if err := break_(dir); err != nil {
				t.Fatal(err)
			}
			s, err := Open(Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			t.Log(s.Damage())
			if err := write(s, at+100_000, 50, 1); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
