package manifest

import (
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	remedyLabel     = "use at most 63 lower-case letters, digits and dashes, beginning and ending with a letter or digit (DNS-1123)"
	remedySubdomain = "use at most 253 lower-case letters, digits, dashes and dots, beginning and ending with a letter or digit (DNS-1123)"
)

// checkMetadata holds an object's name, namespace and labels against the rules
// of Kubernetes.
func (o *object) checkMetadata(meta *metav1.ObjectMeta) {
	switch {
	case o.name == "" && meta.GenerateName != "":
		o.problem("metadata.generateName", "generateName is not supported", "write metadata.name")
	case o.name == "":
		o.problem("metadata", "metadata.name is missing", "give the object a name")
	case o.kind == kindNamespace || o.kind == kindService || o.kind == kindStatefulSet:
		// StatefulSet names become labels of the pods' host names.
		if validation.IsDNS1123Label(o.name) != nil {
			o.problem("metadata.name", "the name "+quoted(o.name)+" is not allowed", remedyLabel)
		}
	case validation.IsDNS1123Subdomain(o.name) != nil:
		o.problem("metadata.name", "the name "+quoted(o.name)+" is not allowed", remedySubdomain)
	}
	if o.namespace != "" && validation.IsDNS1123Label(o.namespace) != nil {
		o.problem("metadata.namespace", "the namespace "+quoted(o.namespace)+" is not allowed", remedyLabel)
	}
	o.checkLabels("metadata.labels", meta.Labels)
}

func (o *object) checkLabels(path string, labels map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if errs := validation.IsQualifiedName(key); errs != nil {
			o.problem(mapKey(path, key), "the label name "+quoted(key)+" is not allowed",
				"use letters, digits, dashes, dots and underscores, with a DNS name and / before it if wanted")
		}
		if errs := validation.IsValidLabelValue(labels[key]); errs != nil {
			o.problem(mapKey(path, key), "the value "+quoted(labels[key])+" of label "+key+" is not allowed",
				"use at most 63 letters, digits, dashes, dots and underscores")
		}
	}
}

// quoted quotes a name or path as it is: who corrects it looks for all of it. Only what
// is longer than any path (PATH_MAX of Linux) is cut.
func quoted(s string) string {
	const longestPath = 4096
	return `"` + strings.ToValidUTF8(shortenTo(s, longestPath), "?") + `"`
}
