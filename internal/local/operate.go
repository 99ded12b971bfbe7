package local

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/local/pod"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// PodStatus is what the supervisor knows of one pod.
type PodStatus struct {
	Workload mesh.Workload // Ready is up to date
	Status   pod.Status    // as told by the pod; its Containers are empty before that
	Programs []string      // names of its containers but the init ones
	ProxyPID int           // of its vitrine-proxy; 0 while there is none
	Restarts int           // of its programs, those caused by the death of a proxy included
	Crashes  int           // deaths of its proxy
	Stopping bool
	Created  time.Time
	Template string // hash of the form it was made from
}

// Pods lists all pods, sorted by namespace and name.
func (s *Supervisor) Pods() []PodStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.podStatuses()
}

// podStatuses is Pods with s.mu held.
func (s *Supervisor) podStatuses() []PodStatus {
	out := make([]PodStatus, 0, len(s.pods))
	for _, p := range s.pods {
		w := p.boot.Workload.Clone()
		w.Ready = p.ready()
		st := p.status
		st.Containers = slices.Clone(st.Containers)
		st.Ready = w.Ready
		programs := make([]string, 0, len(p.boot.Set.Containers))
		for i := range p.boot.Set.Containers {
			programs = append(programs, p.boot.Set.Containers[i].Name)
		}
		out = append(out, PodStatus{
			Workload: w, Status: st, Programs: programs, ProxyPID: p.pid,
			Restarts: p.restarts(), Crashes: p.crashes,
			Stopping: p.isStopping(), Created: p.created, Template: p.boot.Template,
		})
	}
	slices.SortFunc(out, func(a, b PodStatus) int { return strings.Compare(a.Workload.Key(), b.Workload.Key()) })
	return out
}

// Prepare makes the pod of a program that the caller is about to run in the
// foreground (kind Program, one container), announces it, and returns its
// workload and the bootstrap file for `vitrine-proxy sidecar`. If no process
// takes the file up within 30 s, the pod is gone again.
func (s *Supervisor) Prepare(set mesh.WorkloadSet) (w mesh.Workload, bootstrap string, err error) {
	set.Kind, set.Replicas, set.Restart = mesh.KindProgram, 1, mesh.RestartNever
	s.mu.Lock()
	if s.down {
		s.mu.Unlock()
		return w, "", errors.New("the mesh is going down")
	}
	var p *keptPod
	hash := templateHash(&set, "")
	name, err := s.freeName(&set, hash, 0)
	if err == nil {
		p, err = s.create(&set, name, hash, "", 0)
	}
	s.wake()
	s.mu.Unlock()
	if err != nil {
		return w, "", err
	}
	s.runHooks()
	return p.boot.Workload.Clone(), filepath.Join(p.boot.RunDir, pod.BootstrapFile), nil
}

// Restart replaces the pods of the sets that the targets name (a pod's name or
// its owner's, with or without "NAMESPACE/"), the way kubectl rollout restart
// does: one after the other, without a gap in service. Programs of `vitrine run`
// are started again in place. It returns the keys of the affected pods; the
// replacement goes on after it returned.
func (s *Supervisor) Restart(ctx context.Context, targets []string) ([]string, error) {
	s.mu.Lock()
	var keys []string
	var inPlace []*keptPod
	sets := map[SetName]bool{}
	var missing []error
	for _, t := range targets {
		found := false
		for _, p := range s.pods {
			if !Matches(t, &p.boot.Workload) || p.isStopping() {
				continue
			}
			found = true
			if p.boot.Foreground {
				inPlace = append(inPlace, p)
				keys = append(keys, p.key)
			} else {
				sets[keyOf(&p.boot.Set)] = true
			}
		}
		if !found {
			missing = append(missing, nothingCalled(t))
		}
	}
	if err := errors.Join(missing...); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	for k := range sets {
		if w := s.sets[k]; w != nil {
			w.restartedAt = time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z")
			w.hash = templateHash(&w.set, w.restartedAt)
			w.trouble = trouble{}
		}
		for _, p := range s.pods {
			if keyOf(&p.boot.Set) == k && !p.isStopping() {
				keys = append(keys, p.key)
			}
		}
	}
	s.wake()
	s.mu.Unlock()
	slices.Sort(keys)
	var errs []error
	for _, p := range inPlace {
		client := pod.NewClient(p.boot.RunDir)
		errs = append(errs, client.Restart(ctx, ""))
		client.Close()
	}
	return slices.Compact(keys), errors.Join(errs...)
}

// Matches reports whether a target of the command line (POD, OWNER, NS/POD or
// NS/OWNER; without NS the default namespace is not implied, any matches) names
// the pod.
func Matches(target string, w *mesh.Workload) bool {
	ns, name, ok := strings.Cut(target, "/")
	if !ok {
		name = target
	} else if ns != w.Namespace {
		return false
	}
	return name == w.Name || name == w.Owner
}

// Stop ends all pods, those of `vitrine run` too, each with its grace period, and
// returns when none is left. At the end of ctx it kills what remains. All this
// is done by Run: if Run ends before, Stop returns an error.
func (s *Supervisor) Stop(ctx context.Context) error {
	s.mu.Lock()
	s.down = true
	s.wake()
	s.mu.Unlock()
	// Until Run has looked, an empty list means nothing.
	select {
	case <-s.surveyed:
	case <-s.ended:
		return errors.New("stop pods: their supervisor ended before they were known")
	case <-ctx.Done():
		return fmt.Errorf("stop pods: %w before they were known", ctx.Err())
	}
	killed := false
	over := ctx.Done()
	for {
		left, removed := s.left(func(*mesh.Workload) bool { return true })
		switch {
		case len(left) == 0 && !killed:
			s.runHooks()
			return nil
		case len(left) == 0:
			return fmt.Errorf("stop pods: %w: the last ones were killed", ctx.Err())
		}
		select {
		case <-removed:
		case <-over:
			killed, over = true, nil
			s.mu.Lock()
			for _, p := range s.pods {
				p.killNow()
			}
			s.mu.Unlock()
		case <-s.ended:
			return fmt.Errorf("stop pods: their supervisor has ended, %s may still run: the next one takes them over", strings.Join(left, ", "))
		}
	}
}

// AwaitGone returns when no pod is there any more that a target names.
func (s *Supervisor) AwaitGone(ctx context.Context, targets []string) error {
	named := func(w *mesh.Workload) bool {
		return slices.ContainsFunc(targets, func(t string) bool { return Matches(t, w) })
	}
	for {
		left, removed := s.left(named)
		if len(left) == 0 {
			return nil
		}
		select {
		case <-removed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of %s: %w", strings.Join(left, ", "), ctx.Err())
		}
	}
}

// left are the keys of the chosen pods that are there, in order; removed is closed
// when there is a pod less.
func (s *Supervisor) left(chosen func(*mesh.Workload) bool) (keys []string, removed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, p := range s.pods {
		if chosen(&p.boot.Workload) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, s.removed
}
