package clients

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"testing"

	"github.com/kiali/kiali/business"
	"github.com/kiali/kiali/config"
	"github.com/kiali/kiali/graph"
	"github.com/kiali/kiali/graph/api"
	"github.com/kiali/kiali/graph/config/cytoscape"
	"github.com/kiali/kiali/istio"
	"github.com/kiali/kiali/kubernetes/cache"
	"github.com/kiali/kiali/kubernetes/kubetest"
	"github.com/kiali/kiali/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcmd "k8s.io/client-go/tools/clientcmd/api"
)

const namespace = "default"

// TestKialiGraph: Kiali draws the edges that `vitrine graph` prints. Its Kubernetes has
// nothing but the namespace: all that it draws comes from the metrics.
func TestKialiGraph(t *testing.T) {
	conf := config.NewConfig()
	conf.KubernetesConfig.ClusterName = "Kubernetes"
	conf.ExternalServices.Prometheus.URL = running.prometheus
	config.Set(conf)
	k8s := kubetest.NewFakeK8sClient(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	factory := kubetest.NewK8SClientFactoryMock(k8s)
	business.SetWithBackends(factory, nil)
	store := cache.NewTestingCache(t, k8s, *conf)
	business.WithKialiCache(store)
	discovery := istio.NewDiscovery(factory.Clients, store, conf)
	business.WithDiscovery(discovery)
	prom, err := prometheus.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	layer, err := business.NewLayer(conf, store, factory, prom, nil, nil, nil, discovery,
		map[string]*clientcmd.AuthInfo{conf.KubernetesConfig.ClusterName: {Token: "test"}})
	if err != nil {
		t.Fatal(err)
	}

	drawn := drawGraph(t, layer, "graphType=workload")
	workloads := map[string]string{}
	for _, n := range drawn.Elements.Nodes {
		workloads[n.Data.ID] = n.Data.Workload
	}
	var edges []string
	for _, e := range drawn.Elements.Edges {
		edges = append(edges, fmt.Sprint(workloads[e.Data.Source], " -> ", workloads[e.Data.Target], " ", e.Data.Traffic.Protocol))
		if p := e.Data.Traffic.Protocol; (p == "http") != (e.Data.ResponseTime != "") && p != "grpc" {
			t.Errorf("%s: response time %q", edges[len(edges)-1], e.Data.ResponseTime)
		}
	}
	if got, want := sorted(edges), printed(t); !slices.Equal(got, want) {
		t.Errorf("Kiali draws\n%q\nvitrine graph prints\n%q", got, want)
	}
	for _, kind := range []string{"versionedApp&injectServiceNodes=true", "app", "service"} {
		if g := drawGraph(t, layer, "graphType="+kind); len(g.Elements.Edges) == 0 {
			t.Errorf("the graph of type %s has no edge", kind)
		}
	}
}

// drawGraph has Kiali answer a request for a graph.
func drawGraph(t *testing.T, layer *business.Layer, query string) cytoscape.Config {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/api/namespaces/graph?namespaces="+namespace+
		"&duration=60s&rateGrpc=requests&rateHttp=requests&rateTcp=total"+
		"&appenders=responseTime,throughput,securityPolicy,deadNode&responseTime=95&throughputType=response&"+query, nil)
	code, answer := api.GraphNamespaces(t.Context(), layer, graph.NewOptions(r, &layer.Namespace))
	drawn, ok := answer.(cytoscape.Config)
	if code != http.StatusOK || !ok {
		t.Fatalf("%s: %d %v", query, code, answer)
	}
	return drawn
}

// printed is the edges of `vitrine graph -o json` between workloads.
func printed(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(running.graph)
	if err != nil {
		t.Fatal(err)
	}
	var g struct {
		Nodes []struct{ ID, Workload string }
		Edges []struct{ Source, Destination, Protocol string }
	}
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatal(err)
	}
	workloads := map[string]string{}
	for _, n := range g.Nodes {
		workloads[n.ID] = n.Workload
	}
	var edges []string
	for _, e := range g.Edges {
		edges = append(edges, fmt.Sprint(workloads[e.Source], " -> ", workloads[e.Destination], " ", e.Protocol))
	}
	return sorted(edges)
}

// sorted is edges in order, each once.
func sorted(edges []string) []string {
	slices.Sort(edges)
	return slices.Compact(edges)
}
