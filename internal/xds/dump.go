package xds

import (
	"encoding/json"
	"fmt"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/xds/envoy"
)

const adminV3 = "type.googleapis.com/envoy.admin.v3."

// The shapes of envoy.admin.v3.ConfigDump, as far as they apply.
type (
	configDump struct {
		Configs []any `json:"configs"`
	}
	clustersDump struct {
		Type     string        `json:"@type"`
		Clusters []dumpedState `json:"dynamic_active_clusters,omitempty"`
	}
	listenersDump struct {
		Type      string           `json:"@type"`
		Listeners []dumpedListener `json:"dynamic_listeners,omitempty"`
	}
	dumpedListener struct {
		Name   string      `json:"name"`
		Active dumpedState `json:"active_state"`
	}
	routesDump struct {
		Type   string        `json:"@type"`
		Routes []dumpedState `json:"dynamic_route_configs,omitempty"`
	}
	endpointsDump struct {
		Type      string        `json:"@type"`
		Endpoints []dumpedState `json:"dynamic_endpoint_configs,omitempty"`
	}
	// dumpedState is one resource in force; exactly one of the last four is set.
	dumpedState struct {
		Version   string          `json:"version_info"`
		Cluster   json.RawMessage `json:"cluster,omitempty"`
		Listener  json.RawMessage `json:"listener,omitempty"`
		Routes    json.RawMessage `json:"route_config,omitempty"`
		Endpoints json.RawMessage `json:"endpoint_config,omitempty"`
	}
)

// Dump writes cfg in the form of Envoy's /config_dump, so that istioctl
// proxy-config and other tools can read it. Workloads and DNS names are left
// out: Envoy has no place for them.
func Dump(cfg *mesh.NodeConfig) ([]byte, error) {
	resources, err := Encode(cfg)
	if err != nil {
		return nil, fmt.Errorf("dump configuration: %w", err)
	}
	clusters := clustersDump{Type: adminV3 + "ClustersConfigDump"}
	listeners := listenersDump{Type: adminV3 + "ListenersConfigDump"}
	routes := routesDump{Type: adminV3 + "RoutesConfigDump"}
	endpoints := endpointsDump{Type: adminV3 + "EndpointsConfigDump"}
	for _, k := range [...]Kind{CDS, EDS, LDS, RDS} {
		for i := range resources[k] {
			r := &resources[k][i]
			body, err := resourceJSON(k, r)
			if err != nil {
				return nil, fmt.Errorf("dump %v %q: %w", k, r.Name, err)
			}
			state := dumpedState{Version: r.Version}
			switch k {
			case CDS:
				state.Cluster = body
				clusters.Clusters = append(clusters.Clusters, state)
			case LDS:
				state.Listener = body
				listeners.Listeners = append(listeners.Listeners, dumpedListener{Name: r.Name, Active: state})
			case RDS:
				state.Routes = body
				routes.Routes = append(routes.Routes, state)
			default:
				state.Endpoints = body
				endpoints.Endpoints = append(endpoints.Endpoints, state)
			}
		}
	}
	out, err := json.MarshalIndent(configDump{Configs: []any{clusters, listeners, routes, endpoints}}, "", " ")
	if err != nil {
		return nil, fmt.Errorf("dump configuration: %w", err)
	}
	return out, nil
}

func resourceJSON(k Kind, r *Resource) (json.RawMessage, error) {
	m := k.message()
	if err := envoy.UnmarshalStrict(r.Body, m); err != nil {
		return nil, err
	}
	return envoy.MarshalTypedJSON(m)
}
