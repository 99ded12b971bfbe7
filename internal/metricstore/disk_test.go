package metricstore

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// smallDisk is a file system of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// asRoot runs the calling test once more in a user and mount namespace of its
// own, where an ordinary user may mount, and reports false; in that run, and
// for root, it reports true.
func asRoot(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() == 0 {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in a user namespace: %v\n%s", err, out)
	}
	return false
}

// lines is a log to look into.
type lines struct {
	mu   sync.Mutex
	text []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, string(p))
	return len(p), nil
}

func (l *lines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.text {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// While the disk is full, scraping stops to be stored and queries go on; when
// there is space again, everything goes on by itself.
func TestDiskFull(t *testing.T) {
	if !asRoot(t) {
		return
	}
	disk := smallDisk(t, "64m")
	var said lines
	r := start(t, Options{Dir: filepath.Join(disk, "metrics"), MinFreeBytes: 16 << 20, Log: slog.New(slog.NewTextHandler(&said, nil))})
	a := newApp(t)
	a.requests.WithLabelValues("200").Add(5)
	r.SetTargets("apps", []Target{a.target(nil)})
	r.awaitValue(`increase(requests_total[1h] anchored)`, 5)

	ballast := filepath.Join(disk, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for chunk := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(chunk)
	}
	f.Close()
	r.eventually("degraded", func() bool { return r.Degraded() != "" })
	if d := r.Degraded(); !strings.Contains(d, "free some space") || !strings.Contains(d, disk) {
		t.Error(d)
	}
	// What is stored can be asked for, and what happens meanwhile is counted
	// by the target.
	r.awaitValue(`increase(requests_total[1h] anchored)`, 5)
	a.requests.WithLabelValues("200").Add(4)
	if err := r.AppendFinal(t.Context(), "apps", a.target(nil), "text/plain;version=0.0.4", []byte("a 1\n")); err == nil {
		t.Error("something was stored on a full disk")
	}
	const refused = "vitrine_metricstore_samples_refused_total"
	before := r.metric(refused)
	// What a scrape had begun to store before is stored then.
	r.eventually("a refused scrape", func() bool { return r.metric(refused) > before })
	stored := r.db.Head().MaxTime()
	before = r.metric(refused)
	r.eventually("refused samples", func() bool { return r.metric(refused) > before+10 })
	r.eventually("a line of the log", func() bool { return said.count("disk nearly full") > 0 })
	// The log tells it once, however many samples there are.
	if once, each := said.count("disk nearly full"), said.count(errNoSpace.Error()); once != 1 || each != 0 {
		t.Errorf("said %d times, and of %d samples", once, each)
	}
	if now := r.db.Head().MaxTime(); now != stored {
		t.Errorf("samples were stored on a full disk: %d, %d", stored, now)
	}
	if got := r.metric("vitrine_metricstore_degraded"); got != 1 {
		t.Errorf("degraded metric %v", got)
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	r.eventually("recovered", func() bool { return r.Degraded() == "" })
	r.awaitValue(`increase(requests_total[1h] anchored)`, 9)
	r.awaitValue("up", 1)

	// Nothing of this harms the next start.
	r.stop()
	s, err := Open(Options{Dir: filepath.Join(disk, "metrics")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if len(s.Damage()) > 0 {
		t.Error(s.Damage())
	}
	got, err := vectorIn(t.Context(), s, `increase(requests_total[1h] anchored)`, time.Now())
	if err != nil || len(got) != 1 || got[0].Value != 9 {
		t.Error(got, err)
	}
}

// metric is the value of one of the store's own metrics.
func (r *running) metric(name string) float64 {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	r.t.Fatalf("no metric %s", name)
	return 0
}
