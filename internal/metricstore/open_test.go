package metricstore

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
)

// A store that cannot be opened since the process has too few descriptors loses
// nothing by the attempt, wherever in it they run out.
func TestFewDescriptors(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().UnixMilli()
	if err := write(s, at, 3, 7); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	used, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for n := uint64(len(used)); ; n++ {
		few := before
		few.Cur = n
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
			t.Fatal(err)
		}
		s, err = Open(Options{Dir: dir})
		if restore := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); restore != nil {
			t.Fatal(restore)
		}
		if err == nil {
			break
		}
		refused++
		if !errors.Is(err, syscall.EMFILE) {
			t.Fatalf("with %d descriptors: %v, want too many open files", n, err)
		}
		if _, err := os.Stat(filepath.Join(dir, damagedDir)); err == nil {
			t.Fatalf("with %d descriptors good files are put aside", n)
		}
	}
	if refused == 0 || len(s.Damage()) > 0 {
		t.Errorf("%d attempts failed, damage %v; want some, and none", refused, s.Damage())
	}
	got, err := vectorIn(t.Context(), s, "sum(written)", time.UnixMilli(at))
	if err != nil || len(got) != 1 || got[0].Value != 21 {
		t.Errorf("%v (%v), want 21", got, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// What was put aside is removed when its metrics would be too old anyway.
func TestDamagedIsBounded(t *testing.T) {
	dir := t.TempDir()
	aside := func(age time.Duration) string {
		t.Helper()
		p := filepath.Join(dir, damagedDir, strconv.FormatInt(time.Now().Add(-age).UnixNano(), 10))
		if err := os.MkdirAll(filepath.Join(p, "wal"), 0o700); err != nil {
			t.Fatal(err)
		}
		return p
	}
	old, young := aside(3*time.Hour), aside(time.Hour)
	s, err := Open(Options{Dir: dir, RetentionTime: 2 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("the old one: %v, want it gone", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Error(err)
	}
}

// Points of a series that has both kinds of samples are in the order of time.
func TestPointsInOrder(t *testing.T) {
	h := &model.SampleHistogram{Count: 3}
	r, err := new(Remote).result("x", model.Matrix{{
		Values:     []model.SamplePair{{Timestamp: 1000, Value: 1}, {Timestamp: 4000, Value: 4}},
		Histograms: []model.SampleHistogramPair{{Timestamp: 2000, Histogram: h}, {Timestamp: 3000, Histogram: h}},
	}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []Point{{time.UnixMilli(1000), 1}, {time.UnixMilli(2000), 3}, {time.UnixMilli(3000), 3}, {time.UnixMilli(4000), 4}}
	if diff := cmp.Diff(want, r.Series[0].Points); diff != "" {
		t.Errorf("points (-want +got):\n%s", diff)
	}
}

// A series without a type behind a counter is no counter: it is not reset to zero
// when it ends.
func TestFinalSeriesWithoutAType(t *testing.T) {
	r := start(t, Options{})
	const text = "# TYPE requests_total counter\nrequests_total 5\ntemperature 20\nrequests_total_seen 7\n"
	if err := r.AppendFinal(t.Context(), "apps", Target{Address: "127.0.0.1:15020"}, "text/plain;version=0.0.4", []byte(text)); err != nil {
		t.Fatal(err)
	}
	r.awaitValue("last_over_time(requests_total[1m])", 0) // one millisecond later
	for name, want := range map[string]float64{"temperature": 20, "requests_total_seen": 7} {
		got, ok := r.value("last_over_time(" + name + "[1m])")
		if !ok || math.Abs(got-want) > 0 {
			t.Errorf("the last value of %s is %v (%v), want %v", name, got, ok, want)
		}
	}
}
