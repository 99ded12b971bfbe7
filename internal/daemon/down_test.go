package daemon

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestLongEndIsTold: `vitrine down` says what it waits for when the programs have ended
// and the control plane has not.
func TestLongEndIsTold(t *testing.T) {
	dir := t.TempDir()
	file, err := os.Create(filepath.Join(dir, lockFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := takeLock(dir, file); err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- waitUnlocked(t.Context(), dir, w) }()
	line, err := bufio.NewReader(r).ReadString('\n')
	if want := "the programs are stopped; the control plane ends when "; !strings.HasPrefix(line, want) || err != nil {
		t.Errorf("it says %q, %v; want %q", line, err, want)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestLastSamplesAreTold: only an end that takes its time for remote write says so.
func TestLastSamplesAreTold(t *testing.T) {
	for name, tc := range map[string]struct {
		urls []string
		took time.Duration
		want string
	}{
		"at once":         {[]string{"http://a/x"}, 900 * time.Millisecond, ""},
		"no remote write": {nil, time.Minute, ""},
		"long": {
			[]string{"http://a/x", "http://b/y"},
			10 * time.Second,
			"the last samples are on their way to http://a/x, http://b/y, which is given up in a while if it does not answer\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out strings.Builder
				m := &Mesh{cfg: Config{RemoteWrite: tc.urls}, io: IO{Progress: &out}, stopped: make(chan struct{})}
				over, told := make(chan struct{}), make(chan struct{})
				go func() {
					defer close(told)
					m.tellOfLastSamples(over)
				}()
				close(m.stopped)
				<-time.NewTimer(tc.took).C
				close(over)
				<-told
				if out.String() != tc.want {
					t.Errorf("it says %q, want %q", out.String(), tc.want)
				}
			})
		})
	}
}
