package admin

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// ResourceKind is the kind of an Envoy resource.
type ResourceKind uint8

// The kinds that have a place in a configuration dump.
const (
	ResourceListener ResourceKind = iota
	ResourceRoute
	ResourceCluster
	ResourceEndpoints
)

// Resource is one encoded Envoy resource.
type Resource struct {
	Kind ResourceKind
	Name string
	// JSON is the protobuf JSON of the message as google.protobuf.Any: it has
	// an "@type" member.
	JSON json.RawMessage
}

// The parts of a dump, by kind: type of the dump message, name of its list and
// of the resource within an item.
type dumpPart struct {
	kind                  ResourceKind
	message, list, member string
}

func dumpParts() []dumpPart {
	return []dumpPart{
		{ResourceCluster, "ClustersConfigDump", "dynamic_active_clusters", "cluster"},
		{ResourceListener, "ListenersConfigDump", "dynamic_listeners", "listener"},
		{ResourceRoute, "RoutesConfigDump", "dynamic_route_configs", "route_config"},
		{ResourceEndpoints, "EndpointsConfigDump", "dynamic_endpoint_configs", "endpoint_config"},
	}
}

const dumpType = "type.googleapis.com/envoy.admin.v3."

func (s *Server) configDump(w http.ResponseWriter, req *http.Request) {
	q := req.URL.Query()
	nameFilter, err := regexp.Compile(q.Get("name_regex"))
	if err != nil {
		http.Error(w, "name_regex: "+err.Error(), http.StatusBadRequest)
		return
	}
	var (
		resources []Resource
		version   string
		updated   time.Time
	)
	if s.o.Config != nil {
		if _, version, updated = s.o.Config.Current(); version != "" {
			if resources, err = s.o.Config.Resources(); err != nil {
				http.Error(w, "encode configuration: "+err.Error(), http.StatusInternalServerError)
				return
			}
		}
	}
	lists := map[string][]any{}
	for _, part := range dumpParts() {
		items := []any{}
		for i := range resources {
			if r := &resources[i]; r.Kind == part.kind && nameFilter.MatchString(r.Name) {
				items = append(items, part.item(r, version, updated))
			}
		}
		lists[part.list] = items
	}
	if want := q.Get("resource"); want != "" {
		items, ok := lists[want]
		if !ok {
			http.Error(w, want+" not found in config dump", http.StatusNotFound)
			return
		}
		writeJSON(w, map[string]any{"configs": items})
		return
	}
	configs := []any{s.bootstrapDump()}
	for _, part := range dumpParts() {
		if part.kind == ResourceEndpoints && !q.Has("include_eds") {
			continue
		}
		d := map[string]any{"@type": dumpType + part.message}
		if len(lists[part.list]) > 0 {
			d[part.list] = lists[part.list]
		}
		if version != "" && (part.kind == ResourceCluster || part.kind == ResourceListener) {
			d["version_info"] = version
		}
		configs = append(configs, d)
	}
	configs = append(configs, map[string]any{"@type": dumpType + "SecretsConfigDump"})
	writeJSON(w, map[string]any{"configs": configs})
}

// item is the entry of one resource in its list.
func (p dumpPart) item(r *Resource, version string, updated time.Time) any {
	state := map[string]any{
		"version_info": version,
		p.member:       r.JSON,
		"last_updated": updated.UTC().Format("2006-01-02T15:04:05.000Z"),
	}
	if p.kind == ResourceListener {
		return map[string]any{"name": r.Name, "active_state": state}
	}
	return state
}

func (s *Server) bootstrapDump() any {
	return map[string]any{
		"@type":        dumpType + "BootstrapConfigDump",
		"bootstrap":    map[string]any{"node": s.node()},
		"last_updated": s.o.Started.UTC().Format("2006-01-02T15:04:05.000Z"),
	}
}

// writeJSON answers with indented JSON, as Envoy does.
func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		http.Error(w, "encode answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	write(w, string(b)+"\n")
}

func (s *Server) listeners(w http.ResponseWriter, req *http.Request) {
	type status struct {
		Name    string      `json:"name"`
		Address addressDump `json:"local_address"`
	}
	list := []status{}
	var text strings.Builder
	if s.o.Config != nil {
		if cfg, _, _ := s.o.Config.Current(); cfg != nil {
			for i := range cfg.Listeners {
				l := &cfg.Listeners[i]
				list = append(list, status{l.Name, addressOf(l.Address)})
				text.WriteString(l.Name + "::" + l.Address.String() + "\n")
			}
		}
	}
	switch format := req.URL.Query().Get("format"); format {
	case "json":
		writeJSON(w, map[string]any{"listener_statuses": list})
	case "", "text":
		write(w, text.String())
	default:
		badFormat(w, format)
	}
}
