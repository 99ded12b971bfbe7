package xds

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/vitrine-mesh/vitrine/internal/durable"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
	"github.com/vitrine-mesh/vitrine/internal/xds/envoy"
)

// lastGoodMagic begins the file of the last good configuration. The rest is one
// DeltaDiscoveryResponse for each Kind, each after its length in four bytes, and
// the SHA-256 of everything before.
const lastGoodMagic = "vitrine last good configuration 1\n"

// saveLastGood replaces the file by cfg, unless it holds the same already.
// version tells the control plane's version of each resource. It returns the
// new content's sum.
func saveLastGood(path string, cfg *mesh.NodeConfig, version func(Kind, string) string, previous [sha256.Size]byte) ([sha256.Size]byte, error) {
	resources, err := Encode(cfg)
	if err != nil {
		return previous, fmt.Errorf("save last good configuration: %w", err)
	}
	data := []byte(lastGoodMagic)
	for k := range Kinds {
		m := &envoy.DeltaDiscoveryResponse{TypeURL: k.TypeURL()}
		for i := range resources[k] {
			r := &resources[k][i]
			m.Resources = append(m.Resources, &envoy.Resource{
				Name: r.Name, Version: version(k, r.Name), Resource: &envoy.Any{TypeURL: m.TypeURL, Value: r.Body},
			})
		}
		start := len(data)
		if data, err = envoy.Append(append(data, 0, 0, 0, 0), m); err != nil {
			return previous, fmt.Errorf("save last good configuration: %w", err)
		}
		binary.BigEndian.PutUint32(data[start:], uint32(len(data)-start-4))
	}
	sum := sha256.Sum256(data)
	if sum == previous {
		return sum, nil
	}
	if err := durable.Replace(path, append(data, sum[:]...)); err != nil {
		return previous, fmt.Errorf("save last good configuration: %w", err)
	}
	return sum, nil
}

// loadLastGood reads the file into a new store. A file that does not exist
// gives nil.
func loadLastGood(path string) (*store, [sha256.Size]byte, error) {
	var sum [sha256.Size]byte
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, sum, nil
	}
	if err != nil {
		return nil, sum, fmt.Errorf("read last good configuration: %w", err)
	}
	body, ok := bytes.CutPrefix(data, []byte(lastGoodMagic))
	if !ok || len(body) < sha256.Size {
		return nil, sum, fmt.Errorf("last good configuration %s: not such a file, or cut short", path)
	}
	content := data[:len(data)-sha256.Size]
	if sum = sha256.Sum256(content); !bytes.Equal(sum[:], data[len(content):]) {
		return nil, sum, fmt.Errorf("last good configuration %s: damaged, its checksum is wrong", path)
	}
	s, err := parseLastGood(content[len(lastGoodMagic):])
	if err != nil {
		return nil, sum, fmt.Errorf("last good configuration %s: %w", path, err)
	}
	return s, sum, nil
}

func parseLastGood(data []byte) (*store, error) {
	s := newStore()
	for len(data) > 0 {
		if len(data) < 4 || uint64(len(data)-4) < uint64(binary.BigEndian.Uint32(data)) {
			return nil, errors.New("cut short")
		}
		size := int(binary.BigEndian.Uint32(data))
		m := &envoy.DeltaDiscoveryResponse{}
		if err := envoy.Unmarshal(data[4:4+size], m); err != nil {
			return nil, err
		}
		data = data[4+size:]
		k, ok := KindOf(m.TypeURL)
		if !ok {
			return nil, fmt.Errorf("resource type %q is not known", m.TypeURL)
		}
		for _, r := range m.Resources {
			if r.Resource == nil || r.Version == "" {
				return nil, fmt.Errorf("%v %q is incomplete", k, r.Name)
			}
			if err := s.put(k, r.Name, r.Version, r.Resource.Value); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}
