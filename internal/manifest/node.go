package manifest

import yaml "go.yaml.in/yaml/v3"

// childOf is the value of a key of a mapping; nil if there is none.
func childOf(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
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
