package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// Back-off between tries to make a pod. What keeps one from being made (a full
// disk, a directory that is not ours) is mended by a person, who does not want to
// wait as long as for a program that crashes.
const (
	createBackoffInitial = time.Second
	createBackoffMax     = time.Minute
)

// trouble is why no pod of a set can be made at present. It is forgotten when the
// set is applied or restarted.
type trouble struct {
	err   error
	name  string        // of the pod that could not be made: the next try takes it, and its address number with it
	delay time.Duration // between the last try and the next
	retry time.Time     // of the next try
}

// makePods makes the pods of a set that are missing, one for each ordinal, unless
// this has failed a moment ago. again is when to try once more; 0 is never.
// s.mu is held.
func (s *Supervisor) makePods(ctx context.Context, w *wanted, ordinals []int, now time.Time) (again time.Duration) {
	if len(ordinals) == 0 {
		w.trouble = trouble{}
		return 0
	}
	if wait := w.trouble.retry.Sub(now); wait > 0 {
		return wait
	}
	for _, ordinal := range ordinals {
		name, err := w.trouble.name, error(nil)
		if name == "" || s.pods[w.set.Namespace+"/"+name] != nil || w.set.Kind == mesh.KindStatefulSet {
			name, err = s.freeName(&w.set, w.hash, ordinal)
		}
		if err == nil {
			_, err = s.create(&w.set, name, w.hash, w.restartedAt, ordinal)
		}
		if err != nil {
			delay := max(createBackoffInitial, min(2*w.trouble.delay, createBackoffMax))
			w.trouble = trouble{err: err, name: name, delay: delay, retry: now.Add(delay)}
			s.o.Log.ErrorContext(ctx, "pod cannot be made", "kind", w.set.Kind, "namespace", w.set.Namespace, "name", w.set.Name, "next_try", delay, "error", err)
			return delay
		}
		w.trouble = trouble{}
	}
	return 0
}

// freeName is the name of a new pod. s.mu is held.
func (s *Supervisor) freeName(set *mesh.WorkloadSet, hash string, ordinal int) (string, error) {
	name := podName(set, hash, ordinal)
	for s.pods[set.Namespace+"/"+name] != nil {
		if set.Kind == mesh.KindStatefulSet {
			return "", fmt.Errorf("pod %s/%s exists already", set.Namespace, name)
		}
		name = podName(set, hash, ordinal)
	}
	return name, nil
}

// create makes a new pod with a name that is free: addresses, directories,
// bootstrap file. Run starts it. s.mu is held.
func (s *Supervisor) create(set *mesh.WorkloadSet, name, hash, restartedAt string, ordinal int) (*keptPod, error) {
	ports, err := portsOf(set)
	if err != nil {
		return nil, err
	}
	key := set.Namespace + "/" + name
	index, err := s.o.Index(key)
	if err != nil {
		return nil, fmt.Errorf("address of %s: %w", key, err)
	}
	w := mesh.Workload{
		Name: name, Namespace: set.Namespace, Owner: set.Name, OwnerKind: set.Kind,
		ServiceAccount: set.ServiceAccount, Cluster: mesh.DefaultCluster,
		Labels: labelsOf(set, name, hash, ordinal),
		IP:     mesh.IP(s.o.Net, index), CaseIP: mesh.CaseIP4(index),
		Ports: ports,
	}
	if s.ipv6 {
		w.CaseIP6 = mesh.CaseIP6(index)
	}
	boot := &pod.Bootstrap{
		Workload: w, Set: *set, Template: hash, RestartedAt: restartedAt, Net: s.o.Net, Created: time.Now(),
		XDSSocket: s.o.XDSSocket, ControlSocket: s.o.ControlSocket,
		RunDir:     s.runDir(key),
		StateDir:   filepath.Join(s.o.DataDir, "pods", key),
		LogDir:     filepath.Join(s.o.DataDir, "logs", key),
		Foreground: set.Kind == mesh.KindProgram,
		AccessLog:  s.o.AccessLog,
		EvictAfter: s.o.EvictAfter,
	}
	if _, err := boot.Write(); err != nil {
		s.o.Release(key)
		return nil, errors.Join(err, os.RemoveAll(boot.RunDir))
	}
	// What an earlier pod of this name wrote is none of its lines.
	if err := os.RemoveAll(boot.LogDir); err != nil {
		s.o.Log.Warn("log of an earlier pod is continued", "pod", key, "error", err)
	}
	// An empty directory is empty in every new pod, also of an old name.
	if err := os.RemoveAll(filepath.Join(boot.StateDir, pod.VolumeDir)); err != nil {
		s.o.Log.Warn("directories of an earlier pod are not empty", "pod", key, "error", err)
	}
	p := newKeptPod(boot, ordinal)
	s.pods[key] = p
	s.launched = append(s.launched, p)
	s.changed(p)
	return p, nil
}
