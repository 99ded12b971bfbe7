package route

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// maxDomain is the longest authority, in bytes, that is looked up by name: a
// host name (253), a colon and a port. Longer ones match "*" only.
const maxDomain = 260

// Table holds the compiled route configurations of one snapshot.
type Table struct {
	configs map[string]*Config
}

// Config is one compiled route configuration: the virtual hosts of a listener.
type Config struct {
	name     string
	exact    map[string]*virtualHost // lower case, without final dot, with or without port
	suffixes map[string]*virtualHost // ".example.com" for the domain "*.example.com"
	any      *virtualHost            // of the domain "*"; nil if there is none
}

type virtualHost struct {
	name   string
	routes []*Route
}

// Route says where a request goes. It is shared and must not be changed.
type Route struct {
	Name string
	// Timeout of the whole request, response included; 0 is none.
	Timeout time.Duration
	// Clusters has at least one element.
	Clusters []mesh.WeightedCluster

	prefix string
	total  uint64 // of the weights
}

// Compile builds a table. All faults of all configurations are in the error,
// each naming configuration, virtual host and route. The table keeps no reference
// to cfgs' slices.
func Compile(cfgs []mesh.RouteConfig) (*Table, error) {
	t := &Table{configs: make(map[string]*Config, len(cfgs))}
	var faults []error
	for i := range cfgs {
		if t.configs[cfgs[i].Name] != nil {
			faults = append(faults, fmt.Errorf("route configuration %q appears twice", cfgs[i].Name))
			continue
		}
		c, err := compile(&cfgs[i])
		if err != nil {
			faults = append(faults, fmt.Errorf("route configuration %q: %w", cfgs[i].Name, err))
		}
		t.configs[cfgs[i].Name] = c
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return t, nil
}

// Config finds a configuration by name; nil if there is none.
func (t *Table) Config(name string) *Config { return t.configs[name] }

func compile(cfg *mesh.RouteConfig) (*Config, error) {
	c := &Config{name: cfg.Name, exact: map[string]*virtualHost{}, suffixes: map[string]*virtualHost{}}
	var faults []error
	for i := range cfg.VirtualHosts {
		vh := &cfg.VirtualHosts[i]
		compiled := &virtualHost{name: vh.Name}
		if len(vh.Domains) == 0 {
			faults = append(faults, fmt.Errorf("virtual host %q has no domains: name at least one, or *", vh.Name))
		}
		for _, d := range vh.Domains {
			if err := c.addDomain(d, compiled); err != nil {
				faults = append(faults, fmt.Errorf("virtual host %q: %w", vh.Name, err))
			}
		}
		for j := range vh.Routes {
			r, err := newRoute(&vh.Routes[j])
			if err != nil {
				faults = append(faults, fmt.Errorf("virtual host %q: route %d %q: %w", vh.Name, j, vh.Routes[j].Name, err))
				continue
			}
			compiled.routes = append(compiled.routes, r)
		}
	}
	return c, errors.Join(faults...)
}

// addDomain files one domain. Envoy refuses a domain that two virtual hosts of
// one configuration claim, and so does this.
func (c *Config) addDomain(domain string, vh *virtualHost) error {
	if domain == "*" {
		if c.any != nil {
			return fmt.Errorf("domain * belongs to virtual host %q already", c.any.name)
		}
		c.any = vh
		return nil
	}
	into, key := c.exact, normalise(domain)
	if suffix, ok := strings.CutPrefix(key, "*"); ok {
		into, key = c.suffixes, suffix
		if !strings.HasPrefix(key, ".") || len(key) < 2 {
			return fmt.Errorf("domain %q: a wildcard stands for whole labels, as in *.example.com", domain)
		}
	}
	switch {
	case key == "":
		return fmt.Errorf("domain %q is empty", domain)
	case strings.Contains(key, "*"):
		return fmt.Errorf("domain %q: a wildcard may only be the first label", domain)
	case len(key) > maxDomain:
		return fmt.Errorf("domain %.40q… is longer than %d bytes", domain, maxDomain)
	case into[key] != nil && into[key] != vh:
		return fmt.Errorf("domain %q belongs to virtual host %q already", domain, into[key].name)
	}
	into[key] = vh
	return nil
}

func newRoute(in *mesh.Route) (*Route, error) {
	r := &Route{Name: in.Name, Timeout: in.Timeout, Clusters: slices.Clone(in.Clusters), prefix: in.Prefix}
	if in.Timeout < 0 {
		return nil, fmt.Errorf("timeout %v is negative", in.Timeout)
	}
	if !strings.HasPrefix(in.Prefix, "/") {
		return nil, fmt.Errorf("path prefix %q does not start with /", in.Prefix)
	}
	if len(in.Clusters) == 0 {
		return nil, errors.New("no cluster to send requests to")
	}
	for _, c := range in.Clusters {
		if c.Cluster == "" {
			return nil, errors.New("a cluster without a name")
		}
		r.total += uint64(c.Weight)
	}
	if r.total == 0 && len(r.Clusters) > 1 {
		return nil, errors.New("all weights are 0")
	}
	return r, nil
}

// normalise is the form of a domain that lookups use; see Config.find.
func normalise(domain string) string {
	var buf [maxDomain]byte
	if len(domain) > maxDomain {
		return domain
	}
	key, _ := foldHost(&buf, []byte(domain))
	return string(key)
}
