package envoy

const routeV3 = "envoy.config.route.v3."

// RouteConfiguration is a set of virtual hosts.
type RouteConfiguration struct {
	Name         string
	VirtualHosts []*VirtualHost
}

// FullName implements Message.
func (*RouteConfiguration) FullName() string { return routeV3 + "RouteConfiguration" }

func (c *RouteConfiguration) visit(v *visitor) {
	v.str(1, "name", &c.Name)
	messages(v, 2, "virtual_hosts", &c.VirtualHosts)
}

// VirtualHost holds the routes of a set of host names.
type VirtualHost struct {
	Name    string
	Domains []string
	Routes  []*Route
}

// FullName implements Message.
func (*VirtualHost) FullName() string { return routeV3 + "VirtualHost" }

func (h *VirtualHost) visit(v *visitor) {
	v.str(1, "name", &h.Name)
	v.strs(2, "domains", &h.Domains)
	messages(v, 3, "routes", &h.Routes)
}

// Route is one match and what follows from it.
type Route struct {
	Match *RouteMatch
	Route *RouteAction
	Name  string
}

// FullName implements Message.
func (*Route) FullName() string { return routeV3 + "Route" }

func (r *Route) visit(v *visitor) {
	message(v, 1, "match", &r.Match)
	message(v, 2, "route", &r.Route)
	v.str(14, "name", &r.Name)
}

// RouteMatch picks requests.
type RouteMatch struct{ Prefix *string }

// FullName implements Message.
func (*RouteMatch) FullName() string { return routeV3 + "RouteMatch" }

func (m *RouteMatch) visit(v *visitor) {
	v.optStr(1, "prefix", &m.Prefix)
}

// RouteAction sends requests to clusters.
type RouteAction struct {
	Cluster          *string
	WeightedClusters *WeightedCluster
	Timeout          *Duration
}

// FullName implements Message.
func (*RouteAction) FullName() string { return routeV3 + "RouteAction" }

func (a *RouteAction) visit(v *visitor) {
	v.optStr(1, "cluster", &a.Cluster)
	message(v, 3, "weighted_clusters", &a.WeightedClusters)
	message(v, 8, "timeout", &a.Timeout)
}

// WeightedCluster spreads requests over clusters.
type WeightedCluster struct{ Clusters []*ClusterWeight }

// FullName implements Message.
func (*WeightedCluster) FullName() string { return routeV3 + "WeightedCluster" }

func (w *WeightedCluster) visit(v *visitor) {
	messages(v, 1, "clusters", &w.Clusters)
}

// ClusterWeight is one choice of a WeightedCluster.
type ClusterWeight struct {
	Name   string
	Weight *UInt32Value
}

// FullName implements Message.
func (*ClusterWeight) FullName() string { return routeV3 + "WeightedCluster.ClusterWeight" }

func (w *ClusterWeight) visit(v *visitor) {
	v.str(1, "name", &w.Name)
	message(v, 2, "weight", &w.Weight)
}
