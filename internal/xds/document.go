package xds

import (
	"encoding/json"
	"fmt"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/xds/envoy"
)

// Document is one resource for people and their tools to read.
type Document struct {
	Kind Kind
	Name string
	// JSON is the protobuf JSON of the message as google.protobuf.Any: it has an
	// "@type" member.
	JSON json.RawMessage
}

// Documents are the clusters, endpoints, listeners and routes of cfg, in this
// order and each by name, as /config_dump of Envoy shows them. Workloads and DNS
// names are left out: Envoy has no place for them.
func Documents(cfg *mesh.NodeConfig) ([]Document, error) {
	resources, err := Encode(cfg)
	if err != nil {
		return nil, fmt.Errorf("show configuration: %w", err)
	}
	var out []Document
	for _, k := range [...]Kind{CDS, EDS, LDS, RDS} {
		for i := range resources[k] {
			r := &resources[k][i]
			m := k.message()
			if err := envoy.UnmarshalStrict(r.Body, m); err != nil {
				return nil, fmt.Errorf("show %v %q: %w", k, r.Name, err)
			}
			body, err := envoy.MarshalTypedJSON(m)
			if err != nil {
				return nil, fmt.Errorf("show %v %q: %w", k, r.Name, err)
			}
			out = append(out, Document{k, r.Name, body})
		}
	}
	return out, nil
}
