package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxFileBytes bounds one file; etcd takes no object above 1.5 MiB.
const maxFileBytes = 32 << 20

// file is the content of one file.
type file struct {
	name string // as the caller named it; stdin is standard input
	dir  string // absolute; relative programs are looked up from here
	data []byte
}

// stdin is the path of standard input.
const stdin = "-"

// read collects the files behind paths, each once.
func (l *loader) read(paths []string) []*file {
	if len(paths) == 0 {
		l.diags = append(l.diags, Diagnostic{
			File: ".", Problem: "no file was named", Remedy: "name files, directories, or - for standard input",
		})
	}
	found := expand(paths)
	l.diags = append(l.diags, found.problems...)
	return slices.DeleteFunc(found.files, func(f *file) bool {
		err := l.fill(f)
		if err != nil {
			l.diags = append(l.diags, unreadable(f.name, err))
		}
		return err != nil
	})
}

// fill reads the content of f.
func (l *loader) fill(f *file) (err error) {
	switch {
	case f.name != stdin:
		f.data, err = readFile(f.name)
	case l.opts.Stdin == nil:
		err = errors.New("standard input is not available here")
	default:
		f.data, err = readLimited(l.opts.Stdin)
	}
	return err
}

// Find lists the files that Load reads of paths, each once, and the directories that
// it searches for them, as they are named; standard input is not among them. What
// cannot be read is left out. It is for who waits for changes.
func Find(paths []string) (files, dirs []string) {
	found := expand(paths)
	for _, f := range found.files {
		if f.name != stdin {
			files = append(files, f.name)
		}
	}
	return files, found.dirs
}

// expansion is what paths stand for, each file and directory once.
type expansion struct {
	files    []*file // without their content
	dirs     []string
	problems []Diagnostic    // of the paths
	seen     map[string]bool // absolute paths, and stdin
}

func expand(paths []string) *expansion {
	e := &expansion{seen: map[string]bool{}}
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case path == stdin:
			e.add(path)
		case err != nil:
			e.problems = append(e.problems, unreadable(path, err))
		case info.IsDir():
			e.addDir(path)
		default:
			e.add(path)
		}
	}
	return e
}

func (e *expansion) add(path string) {
	if abs, ok := e.first(path); ok {
		e.files = append(e.files, &file{name: path, dir: filepath.Dir(abs)})
	}
}

func (e *expansion) addDir(root string) {
	files, dirs, err := search(root)
	for _, path := range files {
		e.add(path)
	}
	for _, path := range dirs {
		if _, ok := e.first(path); ok {
			e.dirs = append(e.dirs, path)
		}
	}
	switch {
	case err != nil:
		e.problems = append(e.problems, unreadable(root, err))
	case len(files) == 0:
		e.problems = append(e.problems, Diagnostic{
			File: root, Problem: "the directory has no *.yaml, *.yml or *.json file", Remedy: "name another directory",
		})
	}
}

// first reports whether path was not met before.
func (e *expansion) first(path string) (abs string, ok bool) {
	abs, err := filepath.Abs(path)
	if err != nil {
		e.problems = append(e.problems, unreadable(path, err))
		return "", false
	}
	key := abs
	if path == stdin {
		key = stdin // and no file of that name
	}
	ok = !e.seen[key]
	e.seen[key] = true
	return abs, ok
}

// search lists what is read of a directory, and which directories below it are
// searched, itself among them. With an error both are those found before it.
func search(root string) (files, dirs []string, err error) {
	start := root
	if !strings.HasSuffix(start, string(filepath.Separator)) {
		start += string(filepath.Separator) // so that a link to a directory is followed
	}
	err = filepath.WalkDir(start, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		path = filepath.Clean(path)
		hidden := path != filepath.Clean(root) && strings.HasPrefix(d.Name(), ".")
		if d.IsDir() {
			if hidden {
				return fs.SkipDir
			}
			dirs = append(dirs, path)
			return nil
		}
		if !hidden && slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(path))) {
			files = append(files, path)
		}
		return nil
	})
	return files, dirs, err
}

// unreadable is the problem that err is of path.
func unreadable(path string, err error) Diagnostic {
	remedy := "check the path"
	switch {
	case errors.Is(err, fs.ErrPermission):
		remedy = "make it readable for this user"
	case errors.Is(err, errTooLarge):
		remedy = "split it into smaller files"
	}
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err // the path is said already
	}
	return Diagnostic{File: path, Problem: "cannot be read: " + err.Error(), Remedy: remedy}
}

var errTooLarge = fmt.Errorf("larger than %d MiB", maxFileBytes>>20)

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f)
}

func readLimited(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
	if err == nil && len(data) > maxFileBytes {
		return nil, errTooLarge
	}
	return data, err
}

// document is one YAML document of a file.
type document struct {
	data []byte
	line int // of its first byte, from 1
}

// documents splits a file at its "---" lines, so that a syntax error in one
// document does not hide the errors of the next. YAML allows "---" at the
// start of a line only as a separator.
func documents(data []byte) []document {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var docs []document
	start, startLine, line := 0, 1, 1
	flush := func(end int) {
		if doc := data[start:end]; !blank(doc) {
			docs = append(docs, document{data: doc, line: startLine})
		}
	}
	for pos := 0; pos < len(data); line++ {
		next := len(data)
		if i := bytes.IndexByte(data[pos:], '\n'); i >= 0 {
			next = pos + i + 1
		}
		if isSeparator(data[pos:next]) {
			flush(pos)
			start, startLine = pos, line
		}
		pos = next
	}
	flush(len(data))
	return docs
}

// isSeparator reports whether line begins a new document.
func isSeparator(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || strings.IndexByte(" \t\r\n", rest[0]) >= 0)
}

// blank reports whether doc holds nothing but separators, directives and
// comments.
func blank(doc []byte) bool {
	for line := range bytes.Lines(doc) {
		line = bytes.TrimSpace(line)
		switch {
		case len(line) == 0, line[0] == '#', line[0] == '%', bytes.Equal(line, []byte("---")), bytes.Equal(line, []byte("...")):
		default:
			return false
		}
	}
	return true
}
