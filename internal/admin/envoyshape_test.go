package admin

import (
	"encoding/json"
	"errors"
	"testing"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// TestEnvoyReadsIt decodes the JSON answers strictly with Envoy's own messages,
// as istioctl does: no member may be unknown.
func TestEnvoyReadsIt(t *testing.T) {
	s := full(t)
	decode := func(path string, m proto.Message) {
		t.Helper()
		code, body := do(s, "GET", path, "Host", "localhost")
		if code != 200 {
			t.Fatalf("%s: status %d: %s", path, code, body)
		}
		if err := protojson.Unmarshal([]byte(body), m); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	var dump adminv3.ConfigDump
	decode("/config_dump?include_eds", &dump)
	if len(dump.GetConfigs()) != 6 {
		t.Fatalf("%d sections, want 6", len(dump.GetConfigs()))
	}
	var clusters adminv3.ClustersConfigDump
	if err := dump.GetConfigs()[1].UnmarshalTo(&clusters); err != nil {
		t.Fatal(err)
	}
	if n := len(clusters.GetDynamicActiveClusters()); n != 2 || clusters.GetVersionInfo() != "7" {
		t.Errorf("%d clusters of version %q", n, clusters.GetVersionInfo())
	}
	var listeners adminv3.ListenersConfigDump
	if err := dump.GetConfigs()[2].UnmarshalTo(&listeners); err != nil {
		t.Fatal(err)
	}
	if l := listeners.GetDynamicListeners(); len(l) != 1 || l[0].GetName() != "inbound_8080" || l[0].GetActiveState().GetListener() == nil {
		t.Errorf("listeners: %v", l)
	}
	var status adminv3.Clusters
	decode("/clusters?format=json", &status)
	host := status.GetClusterStatuses()[1].GetHostStatuses()[0]
	if host.GetAddress().GetSocketAddress().GetPortValue() != 15100 || host.GetStats()[2].GetValue() != 2 || host.GetWeight() != 3 {
		t.Errorf("host: %v", host)
	}
	decode("/listeners?format=json", &adminv3.Listeners{})
	var info adminv3.ServerInfo
	decode("/server_info", &info)
	if info.GetState() != adminv3.ServerInfo_LIVE || info.GetNode().GetId() != "sidecar~127.77.0.5~cart-v1-1.shop~shop.svc.cluster.local" {
		t.Errorf("server info: %v", &info)
	}
	var memory adminv3.Memory
	decode("/memory", &memory)
	if memory.GetAllocated() == 0 || memory.GetHeapSize() < memory.GetAllocated() {
		t.Errorf("memory: %v", &memory)
	}
	decode("/certs", &adminv3.Certificates{})
}

func TestResourcesFail(t *testing.T) {
	s := newServer(t, func(o *Options) { o.Config = fixedConfig{err: errors.New("no such thing")} })
	code, body := do(s, "GET", "/config_dump", "Host", "localhost")
	if code != 500 || body != "encode configuration: no such thing\n" {
		t.Errorf("%d %q", code, body)
	}
}

// TestNothingKnown asks for everything before there is anything to show.
func TestNothingKnown(t *testing.T) {
	s := newServer(t, nil)
	for path, want := range map[string]string{
		"/clusters": "", "/listeners": "", "/stats": "a_total: 1\n",
		"/clusters?format=json":  "{\n \"cluster_statuses\": []\n}\n",
		"/listeners?format=json": "{\n \"listener_statuses\": []\n}\n",
	} {
		if code, body := do(s, "GET", path, "Host", "localhost"); code != 200 || body != want {
			t.Errorf("%s: %d %q, want %q", path, code, body, want)
		}
	}
	if code, _ := do(s, "GET", "/config_dump", "Host", "localhost"); code != 200 {
		t.Errorf("/config_dump: %d", code)
	}
	if code, _ := do(s, "POST", "/logging", "Host", "localhost"); code != 501 {
		t.Errorf("/logging: %d", code)
	}
}

func TestOptionsAreRequired(t *testing.T) {
	m := textMetrics("")
	for want, o := range map[string]Options{
		"admin options: metrics are missing":       {Scrape: m, Readiness: &Readiness{}},
		"admin options: scrape handler is missing": {Metrics: m, Readiness: &Readiness{}},
		"admin options: readiness is missing":      {Metrics: m, Scrape: m},
	} {
		if _, err := New(o); err == nil || err.Error() != want {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func FuzzParseStats(f *testing.F) {
	f.Add(exposition)
	f.Add("# TYPE a histogram\na_bucket{le=\"1\"} 1\na_bucket{le=\"x} 2\na_bucket{} 3\n{ 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		list := parseStats(text)
		statsText(list)
		if _, err := json.Marshal(statsJSON(list)); err != nil {
			t.Error(err)
		}
	})
}
