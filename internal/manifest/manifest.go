// Package manifest reads Kubernetes YAML and makes mesh objects of it.
//
// It hides the file format: which kinds and fields exist, their defaults, what
// refers to what, and where in which file everything stands. All mistakes of
// all files are found in one pass and reported as Diagnostics with file and
// line; nothing of a set of files is used when one of them is wrong.
//
// The package keeps no state and changes nothing. Load may be called by any
// number of goroutines at once.
package manifest

import (
	"io"
	"slices"
	"strings"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// Objects is what a set of files asks for. The caller owns it.
type Objects struct {
	// Sets are the Deployments, StatefulSets and Jobs, sorted by namespace,
	// name and kind. Labels and Annotations are those of the pod template.
	Sets []mesh.WorkloadSet
	// Services are sorted by host. Their virtual addresses are not set yet.
	Services []mesh.Service
	// Files are the names of the files that were read, and whether each holds an
	// object; one without is a Warning.
	Files map[string]bool
}

// Options say how files are read. The zero value is ready to use.
type Options struct {
	// Stdin is what the path "-" reads; nil makes "-" an error.
	Stdin io.Reader
	// Namespace is given to objects that name none; "" means "default".
	Namespace string
	// CheckPrograms looks up the program and the working directory of each
	// container on this machine.
	CheckPrograms bool
}

// Load reads paths: files, directories (searched for *.yaml, *.yml and *.json
// at any depth, hidden ones left out) or "-". It reports everything that is
// wrong or doubtful in all of them, sorted by file and line. The objects are
// nil if any diagnostic is not a Warning.
func Load(paths []string, opts Options) (*Objects, []Diagnostic) {
	l := &loader{opts: opts, objects: &Objects{Files: map[string]bool{}}}
	if l.opts.Namespace == "" {
		l.opts.Namespace = mesh.DefaultNamespace
	}
	for _, f := range l.read(paths) {
		l.decodeFile(f)
	}
	return l.finish()
}

// loader collects what one Load reads and finds.
type loader struct {
	opts    Options
	objects *Objects
	diags   []Diagnostic
	found   []*object

	configMaps map[string]*mapData // by namespace/name
	secrets    map[string]*mapData
	accounts   map[string]bool
	sets       []*setObject
}

func (l *loader) finish() (*Objects, []Diagnostic) {
	l.rejectDuplicates()
	l.index()
	for _, o := range l.found {
		l.convertSet(o)
	}
	l.convertServices()
	for _, s := range l.sets {
		s.checkWirePorts()
	}
	slices.SortStableFunc(l.diags, compareDiagnostics)
	l.diags = slices.Compact(l.diags)
	if slices.ContainsFunc(l.diags, func(d Diagnostic) bool { return !d.Warning }) {
		return nil, l.diags
	}
	for _, s := range l.sets {
		l.objects.Sets = append(l.objects.Sets, s.set)
	}
	slices.SortStableFunc(l.objects.Sets, func(a, b mesh.WorkloadSet) int {
		return strings.Compare(a.Namespace+"/"+a.Name+"/"+string(a.Kind), b.Namespace+"/"+b.Name+"/"+string(b.Kind))
	})
	return l.objects, l.diags
}

// rejectDuplicates reports the second of two objects of the same kind,
// namespace and name, and drops it.
func (l *loader) rejectDuplicates() {
	first := map[string]*object{}
	l.found = slices.DeleteFunc(l.found, func(o *object) bool {
		if o.name == "" {
			return false
		}
		key := o.group() + "/" + o.kind + "/" + o.namespace + "/" + o.name
		other, twice := first[key]
		if twice {
			o.problem("metadata.name", "is defined twice, first at "+other.where(),
				"remove one of the two or rename it")
			return true
		}
		first[key] = o
		return false
	})
}
