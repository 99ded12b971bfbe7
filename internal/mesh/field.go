package mesh

import "strings"

// fieldMark encloses a field path inside text. Arguments and environment
// variables cannot contain it, so no text of a user can be mistaken for one.
const fieldMark = "\x00"

// FieldRef is the text that stands in Container.Args, Container.Env values and
// Probe.Exec for a downward-API field (see EnvVar.FieldPath), which is known only when the
// replica is made: $(POD_NAME) of a manifest becomes FieldRef("metadata.name").
func FieldRef(path string) string { return fieldMark + path + fieldMark }

// ExpandFields replaces every FieldRef in s by what field returns for its path.
func ExpandFields(s string, field func(path string) string) string {
	if !strings.Contains(s, fieldMark) {
		return s
	}
	var b strings.Builder
	for i, part := range strings.Split(s, fieldMark) {
		if i%2 == 1 {
			part = field(part)
		}
		b.WriteString(part)
	}
	return b.String()
}
