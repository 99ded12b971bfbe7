package control

import (
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// TestWhatIsBehindServices: the gauges follow what is published, and each change
// is counted as what it was.
func TestWhatIsBehindServices(t *testing.T) {
	p := newPlane(t, "")
	http := mesh.ServicePort{Name: "http", Port: 80, TargetPort: 8080}
	port := mesh.WorkloadPort{Port: 8080}
	lines := regexp.MustCompile(`(?m)^pilot_(?:eds_no_instances|endpoint_not_ready|k8s_reg_events.*) \d+$`)
	want := func(when string, metrics ...string) {
		t.Helper()
		p.publish()
		if diff := cmp.Diff(metrics, lines.FindAllString(metricsOf(t, p), -1)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	want("at first", "pilot_eds_no_instances 0", "pilot_endpoint_not_ready 0")

	web, db := service("shop", "web", http), service("shop", "db", http, mesh.ServicePort{Name: "tcp", Port: 5432})
	p.SetServices("files", []mesh.Service{web, db})
	p.SetWorkload(workload("shop", "web", "1", false, port))
	p.SetWorkload(workload("shop", "alone", "1", false, port))
	want("nothing is ready",
		"pilot_eds_no_instances 3", "pilot_endpoint_not_ready 1",
		`pilot_k8s_reg_events{event="add",type="Pods"} 2`, `pilot_k8s_reg_events{event="add",type="Services"} 2`)

	p.SetWorkload(workload("shop", "web", "1", true, port))
	ready := []string{
		"pilot_eds_no_instances 2", "pilot_endpoint_not_ready 0",
		`pilot_k8s_reg_events{event="add",type="Pods"} 2`, `pilot_k8s_reg_events{event="add",type="Services"} 2`,
		`pilot_k8s_reg_events{event="update",type="EndpointSlice"} 1`,
	}
	want("web is ready", ready...)
	p.SetServices("files", []mesh.Service{web, db})
	want("the same again", ready...)

	p.RemoveWorkload("shop/web-1")
	db.Ports = slices.Clone(db.Ports[:1])
	p.SetServices("files", []mesh.Service{db})
	want("web is gone, db has one port less",
		"pilot_eds_no_instances 1", "pilot_endpoint_not_ready 0",
		`pilot_k8s_reg_events{event="add",type="Pods"} 2`, `pilot_k8s_reg_events{event="add",type="Services"} 2`,
		`pilot_k8s_reg_events{event="delete",type="Pods"} 1`, `pilot_k8s_reg_events{event="delete",type="Services"} 1`,
		`pilot_k8s_reg_events{event="update",type="EndpointSlice"} 1`, `pilot_k8s_reg_events{event="update",type="Services"} 1`)
}
