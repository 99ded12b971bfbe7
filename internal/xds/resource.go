package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"hash/fnv"
	"strconv"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/xds/envoy"
)

// Kind is a type of resource. The order is the order in which a proxy must
// learn of new resources, so that nothing refers to what is not there yet.
type Kind uint8

// The resource types.
const (
	CDS   Kind = iota // clusters
	EDS               // endpoints of clusters
	LDS               // listeners
	RDS               // routes
	WDS               // workloads of the mesh
	NDS               // DNS names
	Kinds             // how many there are
)

// String is the short name, as Istio's metrics and istioctl write it.
func (k Kind) String() string {
	switch k {
	case CDS:
		return "cds"
	case EDS:
		return "eds"
	case LDS:
		return "lds"
	case RDS:
		return "rds"
	case WDS:
		return "wds"
	case NDS:
		return "nds"
	case Kinds:
	}
	return mesh.Unknown
}

// TypeURL is the name of the type in requests and responses.
func (k Kind) TypeURL() string {
	if m := k.message(); m != nil {
		return envoy.TypeURL(m)
	}
	return ""
}

// message makes an empty message of the type; nil for no Kind.
func (k Kind) message() envoy.Message {
	switch k {
	case CDS:
		return &envoy.Cluster{}
	case EDS:
		return &envoy.ClusterLoadAssignment{}
	case LDS:
		return &envoy.Listener{}
	case RDS:
		return &envoy.RouteConfiguration{}
	case WDS:
		return &envoy.Workload{}
	case NDS:
		return &envoy.NameTable{}
	case Kinds:
	}
	return nil
}

// KindOf finds the Kind of a type URL.
func KindOf(typeURL string) (Kind, bool) {
	for k := range Kinds {
		if k.TypeURL() == typeURL {
			return k, true
		}
	}
	return Kinds, false
}

// Resource is one encoded resource. It is immutable.
type Resource struct {
	Name    string
	Version string // hash of Body
	Body    []byte // binary protobuf
}

// Resources are all resources of a proxy, sorted by name within each Kind.
type Resources [Kinds][]Resource

// VersionOf returns the version of a resource with the given content.
func versionOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:8])
}

// Fingerprint is the version of a whole configuration. It does not depend on
// the order in which Add is called, and Remove undoes Add, so it can be kept up
// to date step by step.
type Fingerprint uint64

// Add notes that the resource is part of the configuration.
func (f *Fingerprint) Add(k Kind, name, version string) { *f += mark(k, name, version) }

// Remove notes that the resource is no longer part of the configuration.
func (f *Fingerprint) Remove(k Kind, name, version string) { *f -= mark(k, name, version) }

// fingerprintPrefix tells a fingerprint from what other control planes may
// write into system_version_info.
const fingerprintPrefix = "vitrine-"

// String is the form that system_version_info has.
func (f Fingerprint) String() string { return fingerprintPrefix + strconv.FormatUint(uint64(f), 16) }

func mark(k Kind, name, version string) Fingerprint {
	h := fnv.New64a()
	_, _ = h.Write([]byte{byte(k)})
	_, _ = h.Write([]byte(name))
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(version))
	return Fingerprint(h.Sum64())
}

// Fingerprint is the version of all resources together.
func (r *Resources) Fingerprint() Fingerprint {
	var f Fingerprint
	for k := range Kinds {
		for i := range r[k] {
			f.Add(k, r[k][i].Name, r[k][i].Version)
		}
	}
	return f
}
