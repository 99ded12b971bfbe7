package manifest

import (
	"cmp"
	"strconv"
	"strings"
)

// Diagnostic is one thing that is wrong with a file, or doubtful.
type Diagnostic struct {
	File    string // as the caller named it
	Line    int    // of the offending field, from 1; 0 if the file could not be read
	Kind    string // of the object; "" if it is not known
	Name    string // of the object; "" if it is not known
	Problem string
	Remedy  string // what to do
	Warning bool   // the file is usable all the same
}

// String is "file:line: kind/name: what; what to do".
func (d Diagnostic) String() string {
	var b strings.Builder
	b.WriteString(d.File)
	if d.Line > 0 {
		b.WriteByte(':')
		b.WriteString(strconv.Itoa(d.Line))
	}
	b.WriteString(": ")
	if d.Warning {
		b.WriteString("warning: ")
	}
	if d.Kind != "" {
		b.WriteString(d.Kind)
		if d.Name != "" {
			b.WriteString("/" + d.Name)
		}
		b.WriteString(": ")
	}
	b.WriteString(d.Problem)
	if d.Remedy != "" {
		b.WriteString("; " + d.Remedy)
	}
	return b.String()
}

func compareDiagnostics(a, b Diagnostic) int {
	return cmp.Or(
		cmp.Compare(a.File, b.File),
		cmp.Compare(a.Line, b.Line),
		cmp.Compare(a.Kind+"/"+a.Name, b.Kind+"/"+b.Name),
		cmp.Compare(a.Problem, b.Problem),
	)
}
