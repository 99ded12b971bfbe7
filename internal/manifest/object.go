package manifest

import (
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// object is one decoded object and where its fields stand.
type object struct {
	loader     *loader
	file       *file
	line       int            // first line of the object
	lines      map[string]int // field path to line, see decoder
	apiVersion string
	kind       string
	namespace  string // "" for objects that live in none
	name       string
	value      any             // pointer to a type of k8s.io/api; nil for ignored kinds
	unread     map[string]bool // paths of fields that could not be decoded
}

// group is the API group: "apps" of apps/v1, "" of v1.
func (o *object) group() string {
	group, _, ok := strings.Cut(o.apiVersion, "/")
	if !ok {
		return ""
	}
	return group
}

func (o *object) key() string { return o.namespace + "/" + o.name }

func (o *object) where() string { return o.at("") }

// at is file:line of a field.
func (o *object) at(path string) string { return o.file.name + ":" + strconv.Itoa(o.lineOf(path)) }

// lineOf finds the line of a field, or of the nearest field around it that is
// written in the file.
func (o *object) lineOf(path string) int {
	for path != "" {
		if line, ok := o.lines[path]; ok {
			return line
		}
		path = parentPath(path)
	}
	return o.line
}

func parentPath(path string) string { return path[:max(strings.LastIndexAny(path, ".["), 0)] }

// problem reports an error at a field, unless the field, one around it or one
// directly in it could not be decoded: that was reported, and the rest follows.
func (o *object) problem(path, problem, remedy string) {
	for unread := range o.unread {
		if parentPath(unread) == path || path == unread || strings.HasPrefix(path, unread+".") || strings.HasPrefix(path, unread+"[") {
			return
		}
	}
	o.report(o.lineOf(path), problem, remedy, false)
}

// warn reports something doubtful at a field.
func (o *object) warn(path, problem, remedy string) {
	o.report(o.lineOf(path), problem, remedy, true)
}

func (o *object) report(line int, problem, remedy string, warning bool) {
	o.loader.diags = append(o.loader.diags, Diagnostic{
		File: o.file.name, Line: max(line, 1), Kind: o.kind, Name: o.name,
		Problem: problem, Remedy: remedy, Warning: warning,
	})
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

func mapKey(path, key string) string { return path + "[" + strconv.Quote(key) + "]" }

// metadata of any object of k8s.io/api.
func (o *object) metadata() *metav1.ObjectMeta {
	if m, ok := o.value.(metav1.ObjectMetaAccessor); ok {
		if meta, ok := m.GetObjectMeta().(*metav1.ObjectMeta); ok {
			return meta
		}
	}
	return &metav1.ObjectMeta{}
}
