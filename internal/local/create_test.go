package local

import (
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// TestPodsThatCannotBeMade: the tries become rare, take one address number between
// them, and their error is told until one goes well.
func TestPodsThatCannotBeMade(t *testing.T) {
	dir := t.TempDir()
	numbers := map[string]mesh.Index{}
	s, err := New(Options{
		RunDir: dir, DataDir: filepath.Join(dir, "data"), ProxyBinary: "/proxy", Net: mesh.MeshNetFirst,
		XDSSocket: "/xds.sock", ControlSocket: "/control.sock", Log: slog.New(slog.DiscardHandler),
		Index: func(key string) (mesh.Index, error) {
			if numbers[key] == 0 {
				numbers[key] = mesh.Index(len(numbers) + 2)
			}
			return numbers[key], nil
		},
		Claim:   func(string, mesh.Index) error { return nil },
		Release: func(string) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	inTheWay := filepath.Join(dir, "pods") // as a file
	if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply([]mesh.WorkloadSet{{
		Kind: mesh.KindDeployment, Namespace: "default", Name: "web", Replicas: 2, Restart: mesh.RestartAlways,
		Containers: []mesh.Container{{Name: "app", Args: []string{"/app"}}},
	}}); err != nil {
		t.Fatal(err)
	}
	if got := s.State().CreateErrors; len(got) != 0 {
		t.Errorf("errors before the first try: %v", got)
	}
	var w *wanted
	for _, w = range s.sets {
	}
	now := time.Unix(10000, 0)
	for _, want := range []int{1, 2, 4, 8, 16, 32, 60, 60} {
		again := s.makePods(t.Context(), w, []int{0, 0}, now)
		if again != time.Duration(want)*time.Second {
			t.Errorf("next try after %s, want %ds", again, want)
		}
		// Something else happens meanwhile, which is no reason to try again.
		if left := s.makePods(t.Context(), w, []int{0, 0}, now.Add(again-1)); left != 1 {
			t.Errorf("next try after %s, want what is left", left)
		}
		now = now.Add(again)
	}
	if err := s.State().CreateErrors[SetName{mesh.KindDeployment, "default", "web"}]; err == nil || !strings.Contains(err.Error(), inTheWay) || len(s.State().CreateErrors) != 1 {
		t.Errorf("errors %v, want one of %s", s.State().CreateErrors, inTheWay)
	}
	if len(numbers) != 1 {
		t.Errorf("%d addresses were taken, want 1: %v", len(numbers), numbers)
	}

	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	if again := s.makePods(t.Context(), w, []int{0, 0}, now); again != 0 {
		t.Errorf("next try after %s, want none", again)
	}
	if got := s.State().CreateErrors; len(got) != 0 {
		t.Errorf("errors after a try that went well: %v", got)
	}
	made := slices.Sorted(maps.Keys(s.pods))
	if taken := slices.Sorted(maps.Keys(numbers)); len(made) != 2 || !slices.Equal(made, taken) {
		t.Errorf("pods %v, addresses %v; want the same two", made, taken)
	}
}
