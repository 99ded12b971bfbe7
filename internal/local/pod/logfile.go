package pod

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Bounds of the log of one container (the kubelet's containerLogMaxSize; two
// old files instead of four).
const (
	LogFileBytes = 10 << 20
	LogFiles     = 3 // NAME.log, NAME.log.1, NAME.log.2
)

// LogPath is the current log file of a container.
func LogPath(dir, container string) string { return filepath.Join(dir, container+".log") }

// LogFile is an append-only file that is renamed away when it is full, so that
// a log takes at most LogFiles × LogFileBytes. Writes never fail: what cannot be
// written (disk full) is lost, since a program must not stall or die for its log; a
// line in its place says how much, as soon as there is room. Any number of
// goroutines may write; each write stays whole.
type LogFile struct {
	path     string
	maxBytes int64
	rotated  func(*os.File) // may be nil

	mu    sync.Mutex // guards the rest
	file  *os.File
	size  int64
	lost  int   // bytes since the last one that was written
	cause error // why
	torn  bool  // the last line that was written lacks its end
}

// OpenLog opens the log of a container in dir, which is made if needed. rotated
// is called with each new file under the log's lock; it may be nil.
func OpenLog(dir, container string, rotated func(*os.File)) (*LogFile, error) {
	return openLog(dir, container, LogFileBytes, rotated)
}

func openLog(dir, container string, maxBytes int64, rotated func(*os.File)) (*LogFile, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make log directory: %w", err)
	}
	l := &LogFile{path: LogPath(dir, container), maxBytes: maxBytes, rotated: rotated}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return l, nil
}

func (l *LogFile) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.file, l.size = f, st.Size()
	if l.rotated != nil {
		l.rotated(f)
	}
	return nil
}

// Write appends p. It always reports success.
func (l *LogFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil && l.size > 0 && l.size+int64(len(p)) > l.maxBytes {
		l.rotate()
	}
	if l.file == nil {
		if err := l.open(); err != nil {
			l.lost, l.cause = l.lost+len(p), err
			return len(p), nil
		}
	}
	if l.lost == 0 || l.tellLoss() {
		n, err := l.file.Write(p)
		l.size += int64(n)
		l.lost, l.cause = len(p)-n, err
		if n > 0 {
			l.torn = p[n-1] != '\n'
		}
	} else {
		l.lost += len(p)
	}
	return len(p), nil
}

// tellLoss writes the line about what was lost; l.mu is held.
func (l *LogFile) tellLoss() (ok bool) {
	line := fmt.Sprintf("vitrine: %d bytes of output were lost here: %v\n", l.lost, l.cause)
	if l.torn {
		line = "\n" + line
	}
	n, err := l.file.WriteString(line)
	l.size += int64(n)
	if err != nil {
		l.cause, l.torn = err, l.torn || n > 0
		return false
	}
	return true
}

func (l *LogFile) rotate() {
	l.file.Close()
	l.file = nil
	for i := LogFiles - 1; i > 0; i-- {
		from := l.path
		if i > 1 {
			from += "." + strconv.Itoa(i-1)
		}
		// A missing file is the usual case at first; a failed rename shows as
		// a log that grows no older files.
		_ = os.Rename(from, l.path+"."+strconv.Itoa(i))
	}
	_ = l.open() // tried again by the next write
}

// Close ends the log. Later writes open it again.
func (l *LogFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// outputDrain bounds how long the output of a container's last processes is
// waited for after its program ended.
const outputDrain = time.Second

// output carries what the programs of one container write to its log. One pipe
// serves all incarnations of the program, so that children which outlive a
// crash never see a broken pipe.
type output struct {
	w    *os.File // given to programs
	r    *os.File
	log  *LogFile
	done chan struct{}
}

func openOutput(dir, container string) (*output, error) {
	log, err := OpenLog(dir, container, nil)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make pipe for the output of %s: %w", container, err), log.Close())
	}
	return &output{w: w, r: r, log: log, done: make(chan struct{})}, nil
}

// run copies until close.
func (o *output) run() {
	defer close(o.done)
	// LogFile never fails, so the end of the pipe is the only way out.
	_, _ = io.Copy(onlyWriter{o.log}, o.r)
}

// onlyWriter hides ReadFrom and WriteTo, so that io.Copy uses one small buffer.
type onlyWriter struct{ io.Writer }

// close ends run after everything written so far is in the log.
func (o *output) close() {
	o.w.Close()
	if err := o.r.SetReadDeadline(time.Now().Add(outputDrain)); err != nil {
		o.r.Close()
	}
	<-o.done
	o.r.Close()
	_ = o.log.Close()
}
