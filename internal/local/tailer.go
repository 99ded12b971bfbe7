package local

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
)

// maxLineBytes is the longest piece in which a line is passed on.
const maxLineBytes = 64 << 10

// tailer reads a log as it grows and follows it through its rotation.
type tailer struct {
	path string
	file *os.File
	buf  []byte // what read reads into, kept since most looks find nothing
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
		// What was rotated away since the last look, which found no file, is new, too.
		if err := t.seek(-1); err != nil || t.file == nil {
			t.lines(emit)
			return
		}
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
	if t.buf == nil {
		t.buf = make([]byte, 32<<10)
	}
	for {
		n, _ := t.file.Read(t.buf)
		if n == 0 {
			return
		}
		t.part = append(t.part, t.buf[:n]...)
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
