package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
)

const (
	// logPoll is how often log files are looked at for new lines.
	logPoll = 100 * time.Millisecond
	// maxLineBytes is the longest piece in which a line is passed on.
	maxLineBytes = 64 << 10
)

// LogOptions choose what Logs copies.
type LogOptions struct {
	Targets   []string // pods or owners, as for Restart; none is all
	Container string   // "" is all but the proxy; pod.ProxyContainer is the proxy's own log
	Follow    bool     // go on until ctx ends, with pods that appear meanwhile
	Tail      int      // only the last lines of each container; negative is all
}

// Logs calls emit with each line (without its line feed) of the chosen
// containers; the slice is valid during the call. An error of emit ends it and
// is returned. Logs of pods that ended a while ago can be read by their pod's
// name.
func (s *Supervisor) Logs(ctx context.Context, o LogOptions, emit func(pod, container string, line []byte) error) error {
	tails := map[string]*tailer{}
	defer func() {
		for _, t := range tails {
			t.close()
		}
	}()
	var emitErr error
	poll := func(first bool) error {
		for _, src := range s.logSources(o) {
			t := tails[src.path]
			if t == nil {
				t = &tailer{path: src.path}
				tails[src.path] = t
				if first {
					if err := t.seek(o.Tail); err != nil {
						return fmt.Errorf("read log of %s: %w", src.pod, err)
					}
				}
			}
			t.poll(func(line []byte) {
				if emitErr == nil {
					emitErr = emit(src.pod, src.container, line)
				}
			})
			if !o.Follow {
				t.flush(func(line []byte) { emitErr = errors.Join(emitErr, emit(src.pod, src.container, line)) })
			}
			if emitErr != nil {
				return emitErr
			}
		}
		return nil
	}
	if len(s.logSources(o)) == 0 && !o.Follow {
		return fmt.Errorf("no logs of %s (programs of `vitrine run` write to their own terminal, -c istio-proxy shows their proxy's log): see `vitrine ps`", strings.Join(o.Targets, ", "))
	}
	if err := poll(true); err != nil || !o.Follow {
		return err
	}
	tick := time.NewTicker(logPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := poll(false); err != nil {
			return err
		}
	}
}

// logSource is the log of one container.
type logSource struct{ pod, container, path string }

// logSources lists the logs that o chooses, in the order of pods and containers.
func (s *Supervisor) logSources(o LogOptions) []logSource {
	var out []logSource
	s.mu.Lock()
	for _, p := range s.pods {
		w := &p.boot.Workload
		// A program in the foreground writes to its own terminal.
		ownTerminal := p.boot.Foreground && o.Container != pod.ProxyContainer
		if p.boot.LogDir == "" || ownTerminal || len(o.Targets) > 0 && !slices.ContainsFunc(o.Targets, func(t string) bool { return matches(t, w) }) {
			continue
		}
		add := func(container string) {
			out = append(out, logSource{w.Name, container, pod.LogPath(p.boot.LogDir, container)})
		}
		if o.Container == pod.ProxyContainer {
			add(pod.ProxyContainer)
			continue
		}
		for i := range p.boot.Set.InitContainers {
			if n := p.boot.Set.InitContainers[i].Name; o.Container == "" || o.Container == n {
				add(n)
			}
		}
		for i := range p.boot.Set.Containers {
			if n := p.boot.Set.Containers[i].Name; o.Container == "" || o.Container == n {
				add(n)
			}
		}
	}
	s.mu.Unlock()
	slices.SortStableFunc(out, func(a, b logSource) int { return strings.Compare(a.pod, b.pod) })
	if len(out) == 0 {
		out = s.oldLogs(o)
	}
	return out
}

// oldLogs finds the logs of pods that are gone, by pod name.
func (s *Supervisor) oldLogs(o LogOptions) []logSource {
	var out []logSource
	for _, t := range o.Targets {
		ns, name, ok := strings.Cut(t, "/")
		if !ok {
			ns, name = "*", t
		}
		if name == "" || strings.ContainsAny(name+ns, "?[\\") || strings.Contains(name, "*") {
			continue
		}
		paths, err := filepath.Glob(filepath.Join(s.o.DataDir, "logs", ns, name, "*.log"))
		if err != nil {
			continue
		}
		for _, path := range paths {
			container := strings.TrimSuffix(filepath.Base(path), ".log")
			if o.Container == container || o.Container == "" && container != pod.ProxyContainer {
				out = append(out, logSource{name, container, path})
			}
		}
	}
	return out
}

// copyOutput passes new lines of all programs to Options.Output until ctx ends.
func (s *Supervisor) copyOutput(ctx context.Context) {
	if s.o.Output == nil {
		return
	}
	type source struct {
		logSource
		tailer
	}
	tails := map[string]*source{}
	defer func() {
		for _, t := range tails {
			t.close()
		}
	}()
	s.mu.Lock()
	adopted := map[string]bool{}
	for _, p := range s.pods {
		adopted[p.boot.Workload.Name] = p.adopted
	}
	s.mu.Unlock()
	tick := time.NewTicker(logPoll)
	defer tick.Stop()
	for {
		present := map[string]bool{}
		for _, src := range s.logSources(LogOptions{}) {
			present[src.path] = true
			t := tails[src.path]
			if t == nil {
				t = &source{src, tailer{path: src.path}}
				tails[src.path] = t
				if adopted[src.pod] {
					// Its lines so far were shown by an earlier supervisor.
					_ = t.seek(0)
				}
			}
		}
		for path, t := range tails {
			emit := func(line []byte) { s.o.Output(t.pod, t.container, line) }
			t.poll(emit)
			if !present[path] { // gone: this was its last
				t.flush(emit)
				t.close()
				delete(tails, path)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// tailer reads a log as it grows and follows it through its rotation.
type tailer struct {
	path string
	file *os.File
	part []byte // of an unfinished line
}

// seek opens the log where the last n lines begin, so that poll yields them
// first; an unfinished line counts. Negative is all that is kept, older files
// included. It reads no more than those lines.
func (t *tailer) seek(n int) error {
	newest := true // no file with content was seen yet
	for i := range pod.LogFiles {
		f, err := os.Open(t.numbered(i))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		st, err := f.Stat()
		if err == nil && t.same(st) { // it was rotated since it was opened
			f.Close()
			continue
		}
		t.close()
		t.file = f
		switch {
		case err != nil:
			return err
		case n == 0:
			_, err := f.Seek(0, io.SeekEnd)
			return err
		case n > 0:
			if n, err = seekLines(f, st.Size(), n, newest); err != nil || n == 0 {
				return err
			}
			newest = newest && st.Size() == 0
		}
	}
	return nil
}

func (t *tailer) same(st os.FileInfo) bool {
	if t.file == nil {
		return false
	}
	now, err := t.file.Stat()
	return err == nil && os.SameFile(st, now)
}

// seekLines moves f, of the given size, to where its last n lines begin, or to
// its begin if it has fewer; missing is how many lines the files before have to
// give. newest means that no lines follow those of f: then a line feed at the
// end begins no line.
func seekLines(f *os.File, size int64, n int, newest bool) (missing int, err error) {
	buf := make([]byte, min(size, 64<<10))
	for end := size; end > 0; {
		start := max(0, end-int64(len(buf)))
		block := buf[:end-start]
		if _, err := f.ReadAt(block, start); err != nil {
			return n, err
		}
		for at := bytes.LastIndexByte(block, '\n'); at >= 0; at = bytes.LastIndexByte(block[:at], '\n') {
			next := start + int64(at) + 1
			if newest && next == size {
				continue
			}
			if n--; n == 0 {
				_, err := f.Seek(next, io.SeekStart)
				return 0, err
			}
		}
		end = start
	}
	return n, nil
}

// poll passes on every line finished since the last call.
func (t *tailer) poll(emit func(line []byte)) {
	if t.file == nil {
		f, err := os.Open(t.path)
		if err != nil {
			t.lines(emit)
			return
		}
		t.file = f
	}
	for {
		t.read(emit)
		next := t.newer()
		if next == nil {
			break
		}
		// Nothing is written to the file any more, but it may have grown between
		// the read and the rotation.
		t.read(emit)
		t.file.Close()
		t.file = next
	}
	t.lines(emit)
}

// read reads the file to its present end.
func (t *tailer) read(emit func(line []byte)) {
	buf := make([]byte, 32<<10)
	for {
		n, _ := t.file.Read(buf)
		if n == 0 {
			return
		}
		t.part = append(t.part, buf[:n]...)
		t.lines(emit)
	}
}

// newer opens the log file after the present one; nil if that is the newest. If
// the present one is not kept any more, it is the oldest that is.
func (t *tailer) newer() *os.File {
	st, err := t.file.Stat()
	if err != nil {
		return nil
	}
	if now, err := os.Stat(t.path); err != nil || os.SameFile(st, now) {
		return nil // also in the moment between the renaming and the new file
	}
	for range pod.LogFiles { // a rotation meanwhile renames all
		at := pod.LogFiles
		for i := 1; i < pod.LogFiles; i++ {
			if old, err := os.Stat(t.numbered(i)); err == nil && os.SameFile(st, old) {
				at = i
				break
			}
		}
		for i := at - 1; i >= 0; i-- {
			next, err := os.Open(t.numbered(i))
			if err != nil {
				continue // there have not been so many yet
			}
			if at == pod.LogFiles {
				return next
			}
			if old, err := os.Stat(t.numbered(at)); err == nil && os.SameFile(st, old) {
				return next
			}
			next.Close()
			break
		}
	}
	return nil // looked for again by the next poll
}

// numbered is the path of the i-th old log file; 0 is the present one.
func (t *tailer) numbered(i int) string {
	if i == 0 {
		return t.path
	}
	return t.path + "." + strconv.Itoa(i)
}

func (t *tailer) lines(emit func(line []byte)) {
	rest := t.part
	for {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 && len(rest) < maxLineBytes {
			break
		}
		if i < 0 || i > maxLineBytes {
			emit(rest[:maxLineBytes])
			rest = rest[maxLineBytes:]
			continue
		}
		emit(rest[:i])
		rest = rest[i+1:]
	}
	t.part = append(t.part[:0], rest...)
}

// flush passes on an unfinished last line.
func (t *tailer) flush(emit func(line []byte)) {
	if len(t.part) > 0 {
		emit(t.part)
		t.part = nil
	}
}

func (t *tailer) close() {
	if t.file != nil {
		t.file.Close()
		t.file = nil
	}
}
