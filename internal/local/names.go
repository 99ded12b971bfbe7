package local

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// alphabet is what Kubernetes makes generated names of: no vowels, so that no
// words appear, and nothing that looks like something else
// (apimachinery pkg/util/rand).
const alphabet = "bcdfghjklmnpqrstvwxz2456789"

// maxName is the longest pod name: a DNS label, since it is a host name too.
const maxName = 63

// templateHash identifies what the replicas of a set are made from: everything
// but their number, the way they are replaced, and what Services say of their ports. A
// pod with another hash has to be replaced.
func templateHash(set *mesh.WorkloadSet, restartedAt string) string {
	t := *set
	t.Containers = slices.Clone(set.Containers)
	for i := range t.Containers {
		t.Containers[i].Ports = declared(t.Containers[i].Ports)
	}
	t.Source, t.Replicas, t.Completions, t.BackoffLimit, t.Recreate, t.Parallel = "", 0, 0, 0, false, false
	data, err := json.Marshal(struct {
		Set         mesh.WorkloadSet
		RestartedAt string
	}{t, restartedAt})
	if err != nil {
		// All fields are plain values; none can fail to encode.
		data = fmt.Appendf(nil, "%v %s", t, restartedAt)
	}
	h := fnv.New32a()
	h.Write(data)
	digits := []byte(strconv.FormatUint(uint64(h.Sum32()), 10))
	for i, d := range digits {
		digits[i] = alphabet[int(d)%len(alphabet)]
	}
	return string(digits)
}

// declared are the ports as the container itself declares them.
func declared(ports []mesh.ContainerPort) []mesh.ContainerPort {
	out := slices.DeleteFunc(slices.Clone(ports), func(p mesh.ContainerPort) bool { return p.Targeted })
	for i := range out {
		if p := &out[i]; p.Given != nil {
			p.Protocol, p.Given = *p.Given, nil
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// podName makes the name of a new replica the way the set's kind does:
// web-app-6f9c7d5b8-x2k4q, db-0, migrate-x2k4q.
func podName(set *mesh.WorkloadSet, hash string, ordinal int) string {
	switch set.Kind {
	case mesh.KindStatefulSet:
		return set.Name + "-" + strconv.Itoa(ordinal)
	case mesh.KindJob:
		return clip(set.Name, 6) + "-" + suffix()
	case mesh.KindDeployment, mesh.KindProgram:
	}
	return clip(set.Name, 7+len(hash)) + "-" + hash + "-" + suffix()
}

// clip shortens a name to leave room for n more bytes.
func clip(name string, n int) string { return name[:min(len(name), maxName-n)] }

func suffix() string {
	b := make([]byte, 5)
	for i := range b {
		b[i] = alphabet[rand.IntN(len(alphabet))] //nolint:gosec // names need not be secret
	}
	return string(b)
}

// labelsOf are the labels of a new replica: the template's and those that
// Kubernetes' controllers add.
func labelsOf(set *mesh.WorkloadSet, name, hash string, ordinal int) map[string]string {
	l := maps.Clone(set.Labels)
	if l == nil {
		l = map[string]string{}
	}
	switch set.Kind {
	case mesh.KindDeployment:
		l["pod-template-hash"] = hash
	case mesh.KindStatefulSet:
		l["statefulset.kubernetes.io/pod-name"] = name
		l["apps.kubernetes.io/pod-index"] = strconv.Itoa(ordinal)
	case mesh.KindJob:
		l["batch.kubernetes.io/job-name"] = set.Name
		l["job-name"] = set.Name
	case mesh.KindProgram:
	}
	return l
}

// portsOf lists the declared TCP ports of a set in wire-port order.
func portsOf(set *mesh.WorkloadSet) ([]mesh.WorkloadPort, error) {
	var out []mesh.WorkloadPort
	seen := map[uint16]bool{}
	for i := range set.Containers {
		for _, p := range set.Containers[i].Ports {
			if p.Protocol == mesh.ProtocolUDP || seen[p.Port] {
				continue
			}
			seen[p.Port] = true
			wire, err := mesh.WirePort(len(out))
			if err != nil {
				return nil, fmt.Errorf("%s %s/%s: %w", set.Kind, set.Namespace, set.Name, err)
			}
			out = append(out, mesh.WorkloadPort{Name: p.Name, Port: p.Port, Protocol: p.Protocol, WirePort: wire})
		}
	}
	return out, nil
}
