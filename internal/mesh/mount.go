package mesh

import (
	"bytes"
	"maps"
	"slices"
	"strings"
)

// Mount is what a container has at one mount point: either a share of Volume,
// or the directory that holds exactly Files, or, if the Mount of Files[0] is
// empty, that one file.
type Mount struct {
	Path   string
	Volume string // of a Dir; "" for files
	Files  []File
}

// Mounts groups the Files and Dirs of c by mount point, sorted by path.
func (c *Container) Mounts() []Mount {
	at := map[string]*Mount{}
	place := func(path string) *Mount {
		if at[path] == nil {
			at[path] = &Mount{Path: path}
		}
		return at[path]
	}
	for i := range c.Files {
		f := &c.Files[i]
		path := f.Mount
		if path == "" {
			path = f.Path
		}
		m := place(path)
		m.Files = append(m.Files, *f)
	}
	for _, d := range c.Dirs {
		place(d.Path).Volume = d.Volume
	}
	out := make([]Mount, 0, len(at))
	for _, path := range slices.Sorted(maps.Keys(at)) {
		out = append(out, *at[path])
	}
	return out
}

// Hides reports whether o, mounted by one container of a replica, shows
// something else when another container mounts m: the containers share one file
// system. That is so when both are mounted at one path with different content,
// and when m lies over a file of o that it does not hold in the same form.
func (m *Mount) Hides(o *Mount) bool {
	if m.Path == o.Path && (m.Volume != o.Volume || len(m.Files) != len(o.Files)) {
		return true
	}
	if m.Path != o.Path && !strings.HasPrefix(m.Path, o.Path+"/") {
		return false // o lies over m, or elsewhere
	}
	for i := range o.Files {
		f := &o.Files[i]
		if (f.Path == m.Path || strings.HasPrefix(f.Path, m.Path+"/")) && !slices.ContainsFunc(m.Files, f.same) {
			return true
		}
	}
	return false
}

// same reports whether a program that opens f.Path cannot tell f from g.
func (f *File) same(g File) bool {
	return f.Path == g.Path && f.Mode == g.Mode && f.FieldPath == g.FieldPath && bytes.Equal(f.Data, g.Data)
}
