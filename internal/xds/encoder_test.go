package xds

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/xds/envoy"
)

// clusters are n lists of m clusters, each list with memory of its own.
func clusters(n, m int) []*mesh.NodeConfig {
	out := make([]*mesh.NodeConfig, n)
	for i := range out {
		out[i] = &mesh.NodeConfig{}
		for j := range m {
			out[i].Clusters = append(out[i].Clusters, mesh.Cluster{Name: fmt.Sprintf("c%03d", j), Type: mesh.ClusterOriginalDst, ConnectTimeout: time.Second})
		}
	}
	return out
}

// counting makes an Encoder that counts how many clusters it encodes anew.
func counting() (e *Encoder, n *int) {
	e, n = NewEncoder(), new(int)
	encode := e.clusters.encode
	e.clusters.encode = func(c *mesh.Cluster) (envoy.Message, error) { *n++; return encode(c) }
	return e, n
}

func encodeAll(t *testing.T, e *Encoder, cfgs ...*mesh.NodeConfig) {
	t.Helper()
	for _, cfg := range cfgs {
		if _, err := e.Encode(cfg); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEncoderSurvivesPauses: a push long after the last one encodes only what
// changed, and what is not used any more is forgotten all the same.
func TestEncoderSurvivesPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, n := counting()
		cfgs := clusters(3, 10)
		encodeAll(t, e, cfgs[0])
		<-time.NewTimer(time.Hour).C // virtual
		encodeAll(t, e, cfgs[1])
		if *n != 10 {
			t.Errorf("%d clusters are encoded for two equal lists of 10 with an hour between", *n)
		}
		encodeAll(t, e, clusters(1, 5)...)
		for range 4 {
			<-time.NewTimer(40 * time.Second).C // virtual
			encodeAll(t, e, clusters(1, 5)...)
		}
		if left := len(e.clusters.items); left != 5 {
			t.Errorf("%d clusters are kept of which 5 are used", left)
		}
	})
}

// TestEncoderKeepsSharedLists: a list that many proxies share stays, however many
// others come between.
func TestEncoderKeepsSharedLists(t *testing.T) {
	e, _ := counting()
	cfgs := clusters(50, 2)
	shared := cfgs[0]
	first, err := e.Encode(shared)
	if err != nil {
		t.Fatal(err)
	}
	for _, own := range cfgs[1:] {
		encodeAll(t, e, own)
		again, err := e.Encode(shared)
		if err != nil {
			t.Fatal(err)
		}
		if &again[CDS][0] != &first[CDS][0] {
			t.Fatal("the list that is used most was thrown out")
		}
	}
}
