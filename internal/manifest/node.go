package manifest

import yaml "go.yaml.in/yaml/v3"

// childOf is the value of a key of a mapping, its own or one that is merged in by
// "<<"; nil if there is none.
func childOf(n *yaml.Node, key string) *yaml.Node { return childWithin(n, key, maxMerges) }

// maxMerges is how deep merges may be nested; one that merges itself ends there.
const maxMerges = 20

func childWithin(n *yaml.Node, key string, merges int) *yaml.Node {
	n = follow(n)
	if merges == 0 {
		return nil
	}
	if n.Kind == yaml.SequenceNode { // of merged mappings: the first counts
		for _, item := range n.Content {
			if child := childWithin(item, key, merges-1); child != nil {
				return child
			}
		}
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	var merged *yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch n.Content[i].Value {
		case key:
			return n.Content[i+1]
		case "<<":
			merged = n.Content[i+1]
		}
	}
	if merged == nil {
		return nil
	}
	return childWithin(merged, key, merges-1)
}

// scalarAt is the text found by following keys from n, or "".
func scalarAt(n *yaml.Node, keys ...string) string {
	for _, key := range keys {
		if n = follow(n); n.Kind != yaml.MappingNode {
			return ""
		}
		if n = childOf(n, key); n == nil {
			return ""
		}
	}
	if n = follow(n); n.Kind != yaml.ScalarNode || isNull(n) {
		return ""
	}
	return n.Value
}

// follow returns what an alias stands for.
func follow(n *yaml.Node) *yaml.Node {
	for range 100 {
		if n.Kind != yaml.AliasNode || n.Alias == nil {
			break
		}
		n = n.Alias
	}
	return n
}
